"""The FMA data set's metadata (Defferrard et al. 2017): leaving out unpopular experimental tracks."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from open_musiclm.config.json_files import parse_json
from open_musiclm.errors import UserError

EXPERIMENTAL_GENRE = 38
FEWEST_LISTENS = 1000
FEWEST_FAVORITES = 5
METADATA_URL = "https://os.unil.cloud.switch.ch/fma/fma_metadata.zip"
_LONGEST_FIELD = 1 << 24  # albums and artists have long descriptions


def filter_fma(paths: Sequence[Path], metadata_folder: str | None) -> list[Path]:
    """Leaves out tracks of the experimental genre with at most 1,000 listens or at most 5 favourites.

    Files are named by their track id (000002.mp3); others stay. Raises UserError if the metadata is missing.
    """
    unwanted = _unwanted_tracks(_tracks_csv(metadata_folder))
    return [path for path in paths if not path.stem.isdecimal() or int(path.stem) not in unwanted]


def _tracks_csv(metadata_folder: str | None) -> Path:
    where = f"unpack {METADATA_URL} and name its folder in data_preprocessor_cfg.metadata_folder"
    if metadata_folder is None:
        raise UserError(f"--filter_fma: data_preprocessor_cfg.metadata_folder is missing; {where}")
    path = Path(metadata_folder) / "tracks.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such file (--filter_fma needs it); {where}")
    return path


def read_tracks(path: Path, columns: Sequence[tuple[str, str]]) -> Iterator[tuple[int, list[str]]]:
    """The id of every track of tracks.csv and its values of `columns`, each named by group and column.

    The header has three lines: group, column, and the name of the index. Raises UserError.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    with _reading(path), path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        header = list(zip(next(lines), next(lines), strict=True))
        next(lines)
        wanted = [header.index(column) for column in columns]
        for line in lines:
            yield int(line[0]), [line[number] for number in wanted]


def _unwanted_tracks(path: Path) -> set[int]:
    columns = [("track", name) for name in ("genres_all", "listens", "favorites")]
    with _reading(path):
        return {
            track
            for track, (genres, listens, favorites) in read_tracks(path, columns)
            if EXPERIMENTAL_GENRE in parse_json(genres, f"{path}: genres_all")
            and (int(listens) <= FEWEST_LISTENS or int(favorites) <= FEWEST_FAVORITES)
        }


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns the errors of a wrong file into UserError."""
    try:
        yield
    except (OSError, ValueError, StopIteration, IndexError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: not FMA's tracks.csv ({error!r}); download {METADATA_URL} again") from error
