"""Render clips of an instrument outside the demo's training data, for the fine-tuning in docs/fine-tuning.md.

Each clip is a real score, as in the demo corpus, with one player; its captions name the instrument.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from demo.corpus.instruments import Instrument
from open_musiclm import cli

STEEL_DRUMS = Instrument("mallets", 114, 52, 84, ("steel drums", "steel pan", "steel drum"))
_SECONDS = 16.0
_MOST_SCORES = 200


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument("--results_folder", type=Path, required=True, help="folder that the clips are written to")
    parser.add_argument("--clips", type=cli.positive_int, default=10, help="how many clips")
    parser.add_argument("--seed", type=cli.seed, default=0, help="another seed gives other music")
    parser.add_argument("--soundfont", type=Path, default=None, help="a General MIDI soundfont, else one is found")
    return parser


def main(arguments: argparse.Namespace) -> None:
    from demo.corpus.soundfont import find_soundfont

    soundfont = find_soundfont(arguments.soundfont)
    for number in range(arguments.clips):
        cli.print_stdout(
            f"wrote {render_clip(arguments.results_folder, STEEL_DRUMS, number, arguments.seed, soundfont)}"
        )


def render_clip(folder: Path, instrument: Instrument, number: int, seed: int, soundfont: Path) -> Path:
    """Writes a clip and, beside it, its captions as .txt, one on each line. Raises UserError."""
    import numpy as np
    import torch

    from demo.corpus.arrangement import FEWEST_NOTES, arrange, density_of, register_of
    from demo.corpus.captions import captions_for
    from demo.corpus.excerpt import TEMPI
    from demo.corpus.orchestration import Voice
    from demo.corpus.rendering import SAMPLE_HZ, render
    from demo.corpus.scores import MODES, draw_score
    from open_musiclm.audio import write_wave
    from open_musiclm.errors import UserError
    from open_musiclm.files import atomic_write

    rng = np.random.default_rng((seed, number))
    tempo = TEMPI[number % len(TEMPI)]
    for _ in range(_MOST_SCORES):
        mode = MODES[rng.integers(len(MODES))]
        score = draw_score(mode, rng)
        arrangement = None if score is None else arrange(score, tempo, mode, _SECONDS, rng)
        if arrangement is None or len(arrangement.voices) > 1:
            continue
        shift = 12 * round(
            (
                np.mean([instrument.lowest, instrument.highest])
                - _middle([note.pitch for note in arrangement.voices[0].notes])
            )
            / 12
        )
        notes = tuple(replace(note, pitch=note.pitch + shift) for note in arrangement.voices[0].notes)
        kept = tuple(note for note in notes if instrument.lowest <= note.pitch <= instrument.highest)
        if len(kept) < FEWEST_NOTES:
            continue
        voices = (Voice(instrument, kept, leads=True),)
        density, register = density_of(voices, _SECONDS), register_of(voices)
        arrangement = replace(arrangement, voices=voices, density=density, register=register)
        path = folder / f"{seed}_{number:03d}.flac"
        wave = render(arrangement.voices, _SECONDS, soundfont, rng)
        write_wave(path, torch.from_numpy(wave), SAMPLE_HZ)
        with atomic_write(path.with_suffix(".txt")) as temporary:
            temporary.write_text("\n".join(captions_for(arrangement, rng)[:10]) + "\n", encoding="utf-8")
        return path
    raise UserError(f"none of {_MOST_SCORES} scores could be played; is music21 installed with its corpus?")


def _middle(pitches: Sequence[int]) -> int:
    return sorted(pitches)[len(pitches) // 2]


if __name__ == "__main__":
    cli.run(main, arguments())
