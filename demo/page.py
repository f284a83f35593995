"""Writes one web page for a prompt, with players, pictures and scores of its samples inside the file."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from open_musiclm.audio import read_sound
from open_musiclm.audio.spectrogram import write_spectrogram
from open_musiclm.files import atomic_write
from open_musiclm.generation.generate_files import Written

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }}
h1 {{ font-size: 1.5rem; }}
figure {{ margin: 2rem 0; }}
img {{ width: 100%; height: 12rem; display: block; }}
audio {{ width: 100%; margin-top: .5rem; }}
.label {{ color: #555; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="label">{label}</p>
<p class="label">The best match comes first. Similarity: the cosine of the prompt's and the sound's CLAP embeddings, at
most 1.</p>
{samples}
</body>
</html>
"""
_SAMPLE = """<figure>
<figcaption>{rank}. {scores} ({name})</figcaption>
<img alt="spectrogram of sample {rank}: time to the right, pitch upwards" src="data:image/png;base64,{picture}">
<audio controls preload="metadata" src="data:audio/wav;base64,{sound}"></audio>
</figure>"""


@dataclass(frozen=True)
class PageSample:
    """A wave file, its picture and its scores, as text."""

    sound: Path
    picture: Path
    scores: str


def write_sample_page(prompt: str, label: str, written: Sequence[Written], sample_hz: int) -> Path:
    """Writes the pictures of a prompt's samples beside them, and the page; returns its path. Raises UserError."""
    samples = []
    for sample in written:
        picture = sample.path.with_suffix(".png")
        write_spectrogram(picture, read_sound(sample.path).wave, sample_hz)
        samples.append(PageSample(sample.path, picture, str(sample.candidate)))
    first = samples[0].sound
    page = first.with_name(first.stem.rsplit("_", 1)[0] + ".html")
    write_page(page, prompt, label, samples)
    return page


def write_page(path: Path, prompt: str, label: str, samples: Sequence[PageSample]) -> None:
    """Writes the page, with copies of sounds and pictures inside it. `label` says what model this is.

    Raises UserError if writing fails.
    """
    figures = [
        _SAMPLE.format(
            rank=rank,
            scores=html.escape(sample.scores),
            name=html.escape(sample.sound.name),
            picture=_base64(sample.picture),
            sound=_base64(sample.sound),
        )
        for rank, sample in enumerate(samples, start=1)
    ]
    page = _PAGE.format(title=html.escape(prompt), label=html.escape(label), samples="\n".join(figures))
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
