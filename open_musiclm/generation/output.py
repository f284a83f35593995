"""Names and files of generated music: a wave, and a JSON beside it that says where it came from."""

import hashlib
import platform
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio import write_wave
from open_musiclm.files import write_json
from open_musiclm.generation.scorers import Heard

MAX_SLUG_BYTES = 80
Setting = bool | int | float | str | tuple[float, ...] | None
_LIBRARIES = ("open_musiclm", "torch", "transformers", "encodec", "vector-quantize-pytorch")


@dataclass(frozen=True)
class Provenance:
    """Where a wave came from: `settings` and `paths` are what the command line said, and its defaults."""

    prompt: str
    seed: int
    number: int
    heard: Heard
    settings: Mapping[str, Setting]
    paths: Mapping[str, str]


def slug(text: str) -> str:
    """A file name for any text: letters and digits of every script, joined by underscores.

    Where that loses something other than spaces, a short hash of the text keeps names apart.
    """
    composed = unicodedata.normalize("NFC", text)
    plain = re.sub(r"\W+", "_", composed).strip("_").lower()
    short = plain.encode()[:MAX_SLUG_BYTES].decode(errors="ignore").strip("_")
    if short and short == composed.strip().replace(" ", "_"):
        return short
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{short}_{digest}" if short else digest


def write_generated(
    folder: Path, name: str, wave: Float[Tensor, "samples"], sample_hz: int, provenance: Provenance
) -> Path:
    """Writes `name`.wav and `name`.json into `folder`; returns the wave's path. Raises UserError."""
    path = folder / f"{name}.wav"
    write_wave(path, wave, sample_hz)
    write_json(
        path.with_suffix(".json"),
        {
            "prompt": provenance.prompt,
            "seed": provenance.seed,
            "sample": provenance.number,
            "similarity": round(provenance.heard.similarity, 6),
            "rhythm": None if provenance.heard.rhythm is None else round(provenance.heard.rhythm, 6),
            "seconds": wave.shape[0] / sample_hz,
            "sample_hz": sample_hz,
            "settings": provenance.settings,
            "paths": provenance.paths,
            "versions": versions(),
        },
    )
    return path


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that decide what is generated."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}
