"""Cut a folder of music into clips for training, without duplicates. Run the same command again to resume."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from open_musiclm import cli
from open_musiclm.errors import UserError
from open_musiclm.interruption import Interrupted


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument("--results_folder", type=Path, required=True, help="folder that the clips are written to")
    parser.add_argument("folder", type=Path, help="folder of music, searched recursively")
    parser.add_argument("--sample_hz", type=cli.sample_rate, default=48000, help="rate of the clips")
    parser.add_argument("--seconds", type=cli.positive_float, default=30.0, help="longest clip")
    parser.add_argument("--loudness", type=cli.loudness, default=None, help="loudness of each file, LUFS")
    parser.add_argument(
        "--split_by", choices=("artist", "folder", "file"), default="folder", help="what stays in one split"
    )
    parser.add_argument("--valid_frac", type=cli.fraction, default=0.05, help="share of the files for validation")
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of the random split")
    parser.add_argument("--workers", type=cli.positive_int, default=os.cpu_count(), help="processes")
    return parser


def main(arguments: argparse.Namespace) -> None:
    from open_musiclm.data.prepare.prepare import PrepareOptions, prepare_dataset, summary
    from open_musiclm.data.prepare.sources import ClipOptions

    loudness = None if arguments.loudness == cli.OFF else arguments.loudness
    clips = ClipOptions(arguments.sample_hz, arguments.seconds, loudness)
    options = PrepareOptions(clips, arguments.split_by, arguments.valid_frac, arguments.seed, arguments.workers)
    report = prepare_dataset(arguments.folder, arguments.results_folder, options)
    for line in summary(report, arguments.results_folder):
        cli.print_stdout(line)
    if not (report.clips or report.interrupted):
        raise UserError(f"{arguments.folder}: no file of it can be used")
    if report.interrupted:
        cli.print_stdout(f"interrupted; resume with: python {shlex.join(sys.argv)}")
        raise Interrupted(report.interrupted)


if __name__ == "__main__":
    cli.run(main, arguments())
