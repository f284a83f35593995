"""File names and files of generated music: a wave, and a JSON that describes how it was generated."""

import hashlib
import math
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio import levels_of, write_blocks
from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserNotice
from open_musiclm.files import atomic_write, write_json
from open_musiclm.generation.prompts.prompt_description import description
from open_musiclm.generation.prompts.story import AnyPrompt
from open_musiclm.generation.spool import SpooledWave
from open_musiclm.versions import versions

MAX_SLUG_BYTES = 80
NEARLY_SILENT_RMS = 0.003
_BLOCK_SAMPLES = 1 << 20
_MOST_WAV_SAMPLES = (1 << 31) - 1024  # of two bytes; RF64 is the same with 64-bit lengths


@dataclass(frozen=True)
class Provenance:
    """How a wave was generated: its prompt, sample number, scores by name, settings and the paths of all parts.

    `edit` describes the edit or the continuation of a given sound, if it is one.
    """

    prompt: AnyPrompt
    number: int
    scores: Mapping[str, float]
    config: GenerationConfig
    paths: Mapping[str, str]
    edit: Mapping[str, object] = field(default_factory=dict)


def slug(text: str) -> str:
    """A file name for any text: letters and digits of every script, joined by underscores.

    Different texts have different names: a short hash of the text follows if a character other than a space was
    replaced, or if the text has an underscore.
    """
    short = _readable(text)
    if short and "_" not in text and short == text.replace(" ", "_"):
        return short
    return "_".join(filter(None, (short, _digest(text))))


def slugs_of_files(paths: Sequence[Path]) -> list[str]:
    """A file name for each path, from its stem; a hash of the path follows if different paths have the same stem."""
    shorts = [_readable(path.stem) for path in paths]
    counts = Counter(short for short, _ in set(zip(shorts, paths, strict=True)))
    return [
        short if short and counts[short] == 1 else "_".join(filter(None, (short, _digest(str(path)))))
        for short, path in zip(shorts, paths, strict=True)
    ]


def write_generated(
    folder: Path | str, name: str, wave: Float[Tensor, "samples"] | SpooledWave, sample_hz: int, provenance: Provenance
) -> Path:
    """Writes `name`.wav and `name`.json into `folder`; returns the wave's path.

    The wave gets the loudness of the generation config. Existing files are replaced; the JSON is written first.
    Warns with a UserNotice where the wave is nearly silent. Raises UserError.
    """
    path = Path(folder) / f"{name}.wav"
    gain = 1.0
    if provenance.config.loudness is None:
        rms = _rms(wave)
    else:
        levels = levels_of(wave.split(_BLOCK_SAMPLES), sample_hz)
        rms, gain = levels.rms, levels.gain_to(provenance.config.loudness)
    gain_db = round(20 * math.log10(gain), 2)
    record = record_of(provenance, len(wave), sample_hz, rms, gain_db)
    with atomic_write(path) as temporary:
        blocks = (block * gain for block in wave.split(_BLOCK_SAMPLES))
        write_blocks(temporary, blocks, sample_hz, "WAV" if len(wave) < _MOST_WAV_SAMPLES else "RF64")
        write_json(path.with_suffix(".json"), record)
    if rms < NEARLY_SILENT_RMS:
        raised = f", before its gain of {gain_db:.0f} dB" if gain > 1 else ""
        warnings.warn(
            UserNotice(f"{path} is nearly silent: RMS {rms:.4f}{raised}; try another --seed or prompt"), stacklevel=2
        )
    return path


def record_of(
    provenance: Provenance, samples: int, sample_hz: int, rms: float, gain_db: float = 0.0
) -> dict[str, object]:
    """The content of the JSON beside a wave."""
    settings = provenance.config.model_dump()
    return {
        "prompt": str(provenance.prompt),
        **description(provenance.prompt),
        "seed": settings.pop("seed"),
        "sample": provenance.number,
        **provenance.edit,
        **{name: round(score, 6) for name, score in provenance.scores.items()},
        "seconds": samples / sample_hz,
        "sample_hz": sample_hz,
        "rms": round(rms, 6),
        "gain_db": gain_db,
        "settings": settings,
        "paths": provenance.paths,
        "versions": versions(),
    }


def _readable(text: str) -> str:
    plain = re.sub(r"\W+", "_", unicodedata.normalize("NFC", text)).strip("_").lower()
    return plain.encode()[:MAX_SLUG_BYTES].decode(errors="ignore").strip("_")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def _rms(wave: Float[Tensor, "samples"] | SpooledWave) -> float:
    squares = sum(float(block.double().square().sum()) for block in wave.split(_BLOCK_SAMPLES))
    return math.sqrt(squares / len(wave)) if len(wave) else 0.0
