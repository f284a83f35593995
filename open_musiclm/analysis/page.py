"""The analysis as one web page without other files: a map with sound, and the tables."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from jaxtyping import Float

from open_musiclm.analysis.labels import LabelledSound
from open_musiclm.analysis.report import Table
from open_musiclm.audio import Sound, SoundError, mp3_of, read_window, resampled, sound_info
from open_musiclm.files import write_html

_PREVIEW_SECONDS, _PREVIEW_HZ = 4.0, 16000
_DIGITS = 4


@dataclass(frozen=True)
class MapData:
    """What is on the map: sounds, then captions, then prompts, in this order in each projection by its name."""

    sounds: Sequence[LabelledSound]
    captions: Sequence[str]
    prompts: Sequence[str]
    projections: Mapping[str, Float[np.ndarray, "points 2"]]


def write_page(path: Path, title: str, summary: Sequence[str], data: MapData, tables: Sequence[Table]) -> None:
    """Writes the page, with four seconds of every sound inside it. Raises UserError if writing fails."""
    template = files("open_musiclm.analysis").joinpath("page.html").read_text(encoding="utf-8")
    parts = {
        "TITLE": html.escape(title),
        "SUMMARY": "".join(f"<p>{html.escape(line)}</p>" for line in summary),
        "TABLES": "\n".join(table.html() for table in tables),
        "DATA": json.dumps(_content(data), ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c"),
    }
    before, *rest = template.split("@@")
    page = before + "".join(parts[name] + after for name, after in zip(rest[::2], rest[1::2], strict=True))
    write_html(path, page)


def _content(data: MapData) -> dict[str, object]:
    tags = dict.fromkeys(name for sound in data.sounds for name in sound.tags)
    return {
        "sounds": [
            {
                "file": sound.path.name,
                "caption": sound.captions[0] if sound.captions else "",
                "tags": {name: ", ".join(values) for name, values in sound.tags.items()},
                "sound": preview(sound.path),
            }
            for sound in data.sounds
        ],
        "captions": list(data.captions),
        "prompts": list(data.prompts),
        "tags": list(tags),
        "projections": {
            name: np.round(_in_unit_square(points), _DIGITS).tolist() for name, points in data.projections.items()
        },
    }


def preview(path: Path) -> str:
    """Four seconds from the beginning of a sound as an mp3 in base64; empty if it cannot be read any more."""
    try:
        info = sound_info(path)
        wave = read_window(path, 0, min(round(_PREVIEW_SECONDS * info.sample_hz), info.frames), info)
    except SoundError:
        return ""
    return base64.b64encode(mp3_of(resampled(Sound(wave, info.sample_hz), _PREVIEW_HZ), _PREVIEW_HZ)).decode("ascii")


def _in_unit_square(points: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "points 2"]:
    low = points.min(axis=0)
    return (points - low) / max(float((points.max(axis=0) - low).max()), 1e-12)
