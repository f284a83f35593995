"""Opens model directories that others wrote, on disk or on the hub; no other module does.

Reads only what is needed, with bounds: known keys of JSON files, and weights as tensors. No library reads a config by
itself, so none imports, allocates or downloads what the config says. Every error is one line that names the directory,
the file and the reason.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from open_musiclm.checkpoints.finite import check_finite
from open_musiclm.checkpoints.tensor_files import read_tensors
from open_musiclm.checkpoints.torch_files import read_state_dict
from open_musiclm.checkpoints.unwrapping import unwrapped
from open_musiclm.config.json_files import read_json_object, shown
from open_musiclm.errors import UserError, first_line

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
_WEIGHTS_NAMES = (WEIGHTS_NAME, "pytorch_model.bin")
_INDEX = ".index.json"
_SHARD = re.compile(r"[\w-]+(\.[\w-]+)*\.(safetensors|bin)")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_MOST_PROBLEMS = 3


class Description(BaseModel):
    """The keys of a foreign JSON file that are read; other keys are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, protected_namespaces=())

    def given(self) -> dict[str, Any]:
        """The values that the file has; for the others the library's defaults hold."""
        return self.model_dump(exclude_unset=True)


DescriptionType = TypeVar("DescriptionType", bound=Description)


def is_local(name: str, key: str) -> bool:
    """Whether a name is that of a directory on this machine; else it is a hub id.

    Raises UserError for a path of no directory; `key` is what named it.
    """
    if Path(name).is_dir():
        return True
    if not _HUB_ID.fullmatch(name):
        raise UserError(f"{key}: cannot load {name}: no such directory; give one that exists, or a hub id")
    return False


class ForeignDirectory:
    """A directory by its path, or by a text that is a path or a hub id; `key` is what named it, for messages.

    `local` says that it is on this machine. Raises UserError for a text that is neither a directory nor a hub id.
    """

    def __init__(self, name: str | Path, key: str) -> None:
        self.name, self.key = str(name), key
        self.local = isinstance(name, Path) or is_local(name, key)
        self._why_absent = ""

    def find(self, *files: str) -> Path | None:
        """The first of these files that is there. Raises UserError if there is no such directory."""
        for file in files:
            path = self._find(file)
            if path is not None:
                return path
        return None

    def need(self, *files: str) -> Path:
        """As `find`. Raises UserError if there is none there."""
        path = self.find(*files)
        if path is None:
            raise self.refusal(f"there is no {' or '.join(files)}{self._why_absent}")
        return path

    def read(self, file: str, kind: type[DescriptionType]) -> DescriptionType:
        """What `kind` describes of a JSON file. Raises UserError."""
        with self.reading(file):
            return kind.model_validate(self.read_object(file))

    def read_object(self, file: str) -> dict[str, Any]:
        """The content of a JSON file that holds an object. Raises UserError."""
        with self.reading():
            return read_json_object(self.need(file))

    def weights_files(self) -> list[Path]:
        """The file of the weights, or of an index and what it names. Raises UserError."""
        path = self.need(*(name for whole in _WEIGHTS_NAMES for name in (whole, f"{whole}{_INDEX}")))
        if not path.name.endswith(_INDEX):
            return [path]
        names = self.read_object(path.name).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise self.refusal(f"{path.name}: it has no weight_map")
        shards = dict.fromkeys(shown(name) if not isinstance(name, str) else name for name in names.values())
        for name in shards:
            if not _SHARD.fullmatch(name):
                raise self.refusal(f"{path.name}: it names {name[:80]!r}, which is no file of weights beside it")
        return [path, *(self.need(name) for name in shards)]

    def tensors(self) -> dict[str, Tensor]:
        """The weights, on the CPU. Raises UserError, also if they hold NaN or infinity."""
        result: dict[str, Tensor] = {}
        with self.reading():
            for path in self.weights_files():
                if path.name.endswith(_INDEX):
                    continue
                tensors = _read_weights(path)
                if result.keys() & tensors.keys():
                    raise UserError(f"{path}: holds weights that another file of the same index holds too")
                result |= tensors
        return result

    @contextmanager
    def reading(self, file: str = "") -> Iterator[None]:
        """Turns every error in the block into one UserError that names the directory, the file and the reason."""
        try:
            yield
        except UserError as error:
            section = self.key.partition(":")[0]
            raise error if str(error).startswith(f"{section}:") else self.refusal(str(error)) from error
        except Exception as error:  # a library may raise anything for a file that somebody made
            reason = _problems(error) if isinstance(error, ValidationError) else " ".join(str(error).split())[:300]
            reason = reason or type(error).__name__
            raise self.refusal(f"{file}: {reason}" if file else reason) from error

    def refusal(self, reason: str) -> UserError:
        """The error that says why this directory cannot be used."""
        return UserError(f"{self.key}: cannot load {self.name}: {reason}")

    def _find(self, file: str) -> Path | None:
        if not self.local:
            return self._download(file)
        path = Path(self.name) / file
        return path if path.exists() else None

    def _download(self, file: str) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        remedy = "without a network give a local directory"
        try:
            return Path(hf_hub_download(self.name, file))
        except LocalEntryNotFoundError as error:
            self._why_absent = f" ({first_line(error)}); {remedy}"
        except EntryNotFoundError:
            pass
        except Exception as error:  # of the hub's, the network's or the disk's
            raise self.refusal(f"{first_line(error)}; {remedy}") from error
        return None


def _problems(error: ValidationError) -> str:
    """The first problems, each with the value found; pydantic's own text would hold the whole content."""
    problems = error.errors(include_url=False)[:_MOST_PROBLEMS]
    return "; ".join(
        f"{'.'.join(str(part)[:40] for part in problem['loc'])}: {problem['msg']}, found {shown(problem['input'])}"
        for problem in problems
    )


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        return unwrapped(read_tensors(path)[0], path)
    tensors = read_state_dict(path)
    check_finite(tensors, path)
    return tensors
