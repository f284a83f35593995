"""FMA's metadata: which tracks --filter_fma leaves out, and what it says without metadata."""

import csv
from pathlib import Path

import pytest

from open_musiclm.data.fma import METADATA_URL, filter_fma
from open_musiclm.errors import UserError

HEADER = [
    ["", "album", "album", "track", "track", "track", "track"],
    ["", "listens", "favorites", "favorites", "genres_all", "listens", "title"],
    ["track_id", "", "", "", "", "", ""],
]


def _metadata(folder: Path, tracks: dict[int, tuple[str, int, int]]) -> Path:
    """tracks.csv with genres, listens and favourites by track id; albums are popular throughout."""
    folder.mkdir(exist_ok=True)
    with (folder / "tracks.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows(HEADER)
        for track, (genres, listens, favorites) in tracks.items():
            writer.writerow([track, 10**6, 10**6, favorites, genres, listens, 'A "title",\nin two lines' * 20000])
    return folder


def test_unpopular_experimental_tracks_are_left_out(tmp_path: Path) -> None:
    folder = _metadata(
        tmp_path / "fma_metadata",
        {
            2: ("[21]", 0, 0),
            3: ("[1, 38]", 1000, 6),
            5: ("[1, 38]", 1001, 5),
            10: ("[38]", 1001, 6),
            155066: ("[38, 1]", 3, 2),
            1040: ("[]", 3, 2),
            20: ("[138, 380]", 0, 0),
        },
    )
    names = ["000002", "000003", "000005", "000010", "155066", "001040", "000020", "999999", "my own song"]
    paths = [tmp_path / f"{name[:3]}" / f"{name}.mp3" for name in names]
    kept = [path.stem for path in filter_fma(paths, str(folder))]
    assert kept == ["000002", "000010", "001040", "000020", "999999", "my own song"]


@pytest.mark.parametrize("folder", [None, "nowhere"])
def test_missing_metadata(folder: str | None) -> None:
    with pytest.raises(UserError, match=r"data_preprocessor_cfg\.metadata_folder") as caught:
        filter_fma([], folder)
    assert METADATA_URL in str(caught.value)


@pytest.mark.parametrize("content", ["", "a,b\n", ",track\n,genres_all\ntrack_id,\n2,[38]\n", "\0\0"])
def test_metadata_of_another_kind(tmp_path: Path, content: str) -> None:
    (tmp_path / "tracks.csv").write_text(content)
    with pytest.raises(UserError, match=r"not FMA's tracks\.csv"):
        filter_fma([], str(tmp_path))
