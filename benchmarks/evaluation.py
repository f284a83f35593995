"""CPU seconds and memory of the figures of `scripts/evaluate.py` on two large sets, without sound: vectors are random.

Each clip has one window, one embedding and a prompt of its own. Each row is measured in a process of its own.

    python benchmarks/evaluation.py --clips 100000
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import torch

from open_musiclm import cli
from open_musiclm.evaluation import distances, prompt_figures
from open_musiclm.evaluation.clip_prompts import ClipPrompts
from open_musiclm.evaluation.distances import Resampling
from open_musiclm.evaluation.figures import Metric
from open_musiclm.evaluation.vectors import ClipVectors

RESAMPLING = Resampling(0, 100)
MAUVE = Metric("mauve", "MAUVE", "lower", "")
FIGURES: dict[str, Callable[[ClipVectors, ClipVectors], object]] = {
    "FAD": lambda one, other: distances.frechet_figure(distances.FAD, one, other, RESAMPLING),
    "FAD-inf": lambda one, other: distances.extrapolated_figure(one, other, RESAMPLING),
    "KAD": lambda one, other: distances.kernel_figures(one, other, RESAMPLING),
    "density, coverage": lambda one, other: distances.density_figures(one, other, RESAMPLING),
    "MAUVE": lambda one, other: distances.divergence_figure(MAUVE, one, other, RESAMPLING),
    "CLAP score, ranks": lambda one, other: adherence(one),
}


def adherence(own: ClipVectors) -> object:
    """As if the embedding of every clip's prompt were near to that of the clip."""
    noise = torch.randn(own.vectors.shape, generator=torch.Generator().manual_seed(2))
    numbers = list(range(len(own.vectors)))
    prompts = ClipPrompts(numbers, torch.nn.functional.normalize(own.vectors + noise, dim=1), numbers, "")
    return prompt_figures.adherence_figures(prompts, own, RESAMPLING)


def measure(name: str, clips: int, dim: int) -> tuple[float, float]:
    """CPU seconds and peak megabytes of a figure of two sets whose vectors lie about 64 centres."""
    sets = []
    for seed in (0, 1):
        rng = torch.Generator().manual_seed(seed)
        centres = torch.randn(64, dim, generator=torch.Generator().manual_seed(9))
        vectors = centres[torch.randint(64, (clips,), generator=rng)] + torch.randn(clips, dim, generator=rng)
        sets.append(ClipVectors(vectors, torch.arange(clips)))
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten (Linux)
    begun = time.process_time()
    FIGURES[name](*sets)
    seconds, status = time.process_time() - begun, Path("/proc/self/status").read_text()
    return seconds, next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**10


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument("--clips", type=cli.positive_int, default=100_000, help="clips of each set")
    parser.add_argument("--dim", type=cli.positive_int, default=512, help="numbers of a vector")
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES), help="which rows")
    return parser


def main(arguments: argparse.Namespace) -> None:
    cli.print_stdout(f"{arguments.clips} clips, {arguments.dim} numbers, {torch.get_num_threads()} threads\n")
    cli.print_stdout(f"{'':22}{'CPU s':>9}{'peak MB':>9}{'of them vectors':>17}")
    vectors = 2 * arguments.clips * arguments.dim * 4 / 2**20
    for name in arguments.figures:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, megabytes = pool.apply(measure, (name, arguments.clips, arguments.dim))
        cli.print_stdout(f"{name:22}{seconds:9.0f}{megabytes:9.0f}{vectors:17.0f}")


if __name__ == "__main__":
    cli.run(main, arguments())
