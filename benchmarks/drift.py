"""How long music drifts: similarity to its prompt, key and tempo, every ten seconds.

For each part of the music, the means over all prompts and samples of

- CLAP's similarity to the prompt, and to the first part;
- the correlation of the chroma with the first part's, and the share of the music that is still in its key
  (Krumhansl and Kessler 1982);
- the share of the music that still has the first part's tempo, or two or three times, a half or a third of it (Gouyon
  et al. 2006), by librosa's estimate.

    python benchmarks/drift.py "fast violin tune" "slow sad piano" --checkpoint_dir demo/bundle --seconds 180
    python benchmarks/drift.py "fast violin tune" --sound real.flac --checkpoint_dir demo/bundle
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm import audio, cli
from open_musiclm.audio import Sound
from open_musiclm.errors import UserError
from open_musiclm.evaluation.sound_measures import TempoMeasure
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.progress import stage_progress
from open_musiclm.metrics.tempo import same_tempo_but_for_octave

_HZ = 22050
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


@dataclass(frozen=True)
class Part:
    """What is measured of some seconds of music; `bpm` is NaN if no beat is found."""

    embedding: Float[Tensor, "dim"]
    chroma: Float[np.ndarray, "12"]
    bpm: float


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    cli.add_device_argument(parser)
    parser.add_argument("prompts", nargs="+", type=cli.prompt, metavar="prompt", help="a description of the music")
    parser.add_argument("--seconds", type=cli.positive_float, default=180.0, help="of music for each prompt")
    parser.add_argument("--part_seconds", type=cli.positive_float, default=10.0, help="of each part")
    parser.add_argument("--samples", type=cli.positive_int, default=1, help="of each prompt")
    parser.add_argument("--sound", type=Path, help="measure this file instead of generated music, for comparison")
    cli.add_model_arguments(parser)
    cli.add_generation_arguments(parser, ("semantic_advance", *cli.SAMPLING_FIELDS))
    return parser


def main(arguments: argparse.Namespace) -> None:
    model, _ = cli.load_model(arguments)
    tempo = TempoMeasure()
    pieces = []
    for prompt, sound in _sounds(model, arguments):
        parts = [measured(model, tempo, part) for part in parts_of(sound, arguments.part_seconds)]
        if len(parts) < 2:
            raise UserError(f"--part_seconds {arguments.part_seconds:g}: {sound.seconds:g} s have no second part")
        pieces.append((model.embed_prompts([prompt])[0], parts))
    cli.print_stdout(f"means of {len(pieces)}")
    cli.print_stdout("| seconds | similarity to the prompt | to the first part | chroma | key kept | tempo kept |")
    cli.print_stdout("| --- " * 6 + "|")
    for place in range(min(len(parts) for _, parts in pieces)):
        rows = [row(wanted, parts[0], parts[place]) for wanted, parts in pieces]
        figures = np.nanmean(np.array(rows, dtype=float), axis=0)
        start = place * arguments.part_seconds
        cli.print_stdout(
            f"| {start:g}-{start + arguments.part_seconds:g} | {' | '.join(f'{value:.2f}' for value in figures)} |"
        )


def _sounds(model: MusicLM, arguments: argparse.Namespace) -> Iterator[tuple[str, Sound]]:
    """The prompts with the music to measure."""
    if arguments.sound is not None:
        sound = audio.read_sound(arguments.sound)
        yield from ((prompt, sound) for prompt in arguments.prompts)
        return
    with stage_progress() as progress:
        waves = model.generate(arguments.prompts, arguments.seconds, arguments.samples, progress=progress)
    prompts = [prompt for prompt in arguments.prompts for _ in range(arguments.samples)]
    yield from ((prompt, Sound(wave, model.sample_hz)) for prompt, wave in zip(prompts, waves, strict=True))


def parts_of(sound: Sound, seconds: float) -> list[Sound]:
    """Whole parts of a sound."""
    samples = audio.samples_of(seconds, sound.sample_hz)
    return [Sound(wave, sound.sample_hz) for wave in sound.wave.split(samples) if len(wave) == samples]


def measured(model: MusicLM, tempo: TempoMeasure, part: Sound) -> Part:
    """What is measured of one part."""
    import librosa

    wave = audio.resampled(part, _HZ).numpy()
    chroma = librosa.feature.chroma_stft(y=wave, sr=_HZ, tuning=0.0).mean(axis=1)
    return Part(model.embed_sound(part), chroma, float(tempo.measure([part])[0]["bpm"]))


def row(prompt: Float[Tensor, "dim"], first: Part, part: Part) -> Sequence[float]:
    """The figures of a part; the tempo is NaN if the first part has none."""
    same_tempo = same_tempo_but_for_octave(part.bpm, first.bpm) if math.isfinite(first.bpm) else math.nan
    return (
        float(part.embedding @ prompt),
        float(part.embedding @ first.embedding),
        float(np.corrcoef(part.chroma, first.chroma)[0, 1]),
        float(key_of(part.chroma) == key_of(first.chroma)),
        float(same_tempo),
    )


def key_of(chroma: Float[np.ndarray, "12"]) -> int:
    """The key whose profile the chroma resembles most: 0 to 11 major from C on, 12 to 23 minor."""
    profiles = [np.roll(profile, tonic) for profile in (_MAJOR, _MINOR) for tonic in range(12)]
    return int(np.argmax([np.corrcoef(chroma, profile)[0, 1] for profile in profiles]))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    cli.run(main, arguments())
