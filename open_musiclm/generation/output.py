"""Names and files of generated music: a wave, and a JSON beside it that says how it was made."""

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
from open_musiclm.config import GenerationConfig
from open_musiclm.files import write_json

MAX_SLUG_BYTES = 80
_LIBRARIES = ("open_musiclm", "torch", "transformers", "encodec", "vector-quantize-pytorch")


@dataclass(frozen=True)
class Provenance:
    """How a wave was made: its prompt, sample number, scores by their names, settings and the paths of all parts."""

    prompt: str
    number: int
    scores: Mapping[str, float]
    config: GenerationConfig
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
    settings = provenance.config.model_dump()
    write_json(
        path.with_suffix(".json"),
        {
            "prompt": provenance.prompt,
            "seed": settings.pop("seed"),
            "sample": provenance.number,
            **{name: round(score, 6) for name, score in provenance.scores.items()},
            "seconds": wave.shape[0] / sample_hz,
            "sample_hz": sample_hz,
            "settings": settings,
            "paths": provenance.paths,
            "versions": versions(),
        },
    )
    return path


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that decide what is generated."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}
