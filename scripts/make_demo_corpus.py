"""Render a captioned corpus of music: real scores, arranged for many instruments, played by a soundfont.

A second run keeps existing clips, and renders only the missing ones. Needs the "demo" extra.
"""

import argparse
import os
from pathlib import Path

from open_musiclm import cli
from open_musiclm.errors import UserError


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument("--results_folder", type=Path, default=None, help="folder of the corpus, like --output")
    parser.add_argument("--output", type=Path, default=None, help="folder of the clips and their captions.jsonl")
    parser.add_argument("--hours", type=cli.positive_float, default=0.5, help="hours of music")
    parser.add_argument("--seed", type=cli.seed, default=0, help="another seed gives other music")
    parser.add_argument(
        "--soundfont", type=Path, default=None, help="a General MIDI soundfont (.sf2), else one is found"
    )
    parser.add_argument("--workers", type=cli.positive_int, default=os.cpu_count(), help="processes")
    return parser


def main(arguments: argparse.Namespace) -> None:
    cli.exclude_arguments(arguments, "output", "results_folder")
    folder = arguments.output or arguments.results_folder
    if folder is None:
        raise UserError("missing --output, the folder for the clips")
    from demo.corpus.corpus import make_corpus
    from demo.corpus.soundfont import find_soundfont
    from open_musiclm.data.caption_lines import CAPTIONS_NAME

    soundfont = find_soundfont(arguments.soundfont)
    cli.print_stdout(f"soundfont: {soundfont}")
    clips = make_corpus(folder, arguments.hours, arguments.seed, soundfont, arguments.workers)
    minutes = sum(clip.seconds for clip in clips) / 60
    cli.print_stdout(
        f"wrote {len(clips)} clips, {minutes:.1f} minutes, to {folder}, described in {folder / CAPTIONS_NAME}"
    )


if __name__ == "__main__":
    cli.run(main, arguments())
