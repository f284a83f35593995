"""A random ten-second crop of a short and of a long sound file: milliseconds, by format.

The first example of a file includes the pass over the whole file for MERT's normalisation; the result is cached.
Writes files of noise and a tone below --folder, which are kept for the next run.

    python benchmarks/crops.py --folder /tmp/crops --minutes 0.5 180
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from open_musiclm import cli
from open_musiclm.audio import read_window, sound_info
from open_musiclm.data.crops import Crop
from open_musiclm.data.sound_dataset import SoundDataset
from open_musiclm.data.statistics import StatisticsCache
from open_musiclm.errors import UserError

SAMPLE_HZ = 22050
SECONDS = 10.0
CROPS = (Crop("clap", SECONDS, 48000, False), Crop("semantic", SECONDS, 16000, True), Crop("coarse", 4.0, 24000, False))


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the sound files are, or are written to")
    parser.add_argument("--minutes", type=cli.positive_float, nargs="+", default=[0.5, 180.0], help="lengths of files")
    parser.add_argument("--formats", nargs="+", default=["wav", "flac", "ogg", "mp3"], help="as suffixes")
    parser.add_argument("--repetitions", type=cli.positive_int, default=20, help="crops; the median is printed")
    return parser


def main(arguments: argparse.Namespace) -> None:
    cli.print_stdout(f"{'':6}{'minutes':>9}{'read ms':>9}{'slowest':>9}{'example ms':>12}{'first example ms':>18}")
    for suffix in arguments.formats:
        for minutes in arguments.minutes:
            path = _written(arguments.folder / f"{minutes:g}_minutes.{suffix}", minutes)
            info, span = sound_info(path), round(SECONDS * SAMPLE_HZ)
            if info.frames <= span:
                raise UserError(f"--minutes {minutes:g}: too short for crops of {SECONDS:g} s")
            starts = np.random.default_rng(0).integers(0, info.frames - span, arguments.repetitions)
            reads = [_milliseconds(functools.partial(read_window, path, int(start), span, info)) for start in starts]
            dataset = SoundDataset([path], CROPS, seed=0, statistics=StatisticsCache())
            examples = [_milliseconds(functools.partial(dataset.__getitem__, n)) for n in range(len(starts) + 1)]
            cli.print_stdout(
                f"{suffix:6}{minutes:9g}{statistics.median(reads):9.2f}{max(reads):9.2f}"
                f"{statistics.median(examples[1:]):12.2f}{examples[0]:18.1f}"
            )


def _written(path: Path, minutes: float) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        times = np.arange(SAMPLE_HZ) / SAMPLE_HZ
        generator = np.random.default_rng(0)
        unfinished = path.with_stem(f"unfinished_{path.stem}")
        with soundfile.SoundFile(unfinished, "w", SAMPLE_HZ, 1) as file:
            for _ in range(round(60 * minutes)):  # a second at a time: libsndfile's encoders fail on more
                file.write(0.2 * np.sin(2 * np.pi * 220 * times) + 0.05 * generator.standard_normal(SAMPLE_HZ))
        unfinished.rename(path)
    return path


def _milliseconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begun)


if __name__ == "__main__":
    cli.run(main, arguments())
