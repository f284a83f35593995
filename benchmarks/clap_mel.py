"""CLAP's front end: milliseconds per ten-second clip, in batches here, against transformers clip by clip.

python benchmarks/clap_mel.py --device cpu
"""

import argparse
import time
from collections.abc import Callable

import torch
from transformers import ClapFeatureExtractor

from open_musiclm import cli
from open_musiclm.devices import choose_device
from open_musiclm.tokenizers.clap_mel import ClapMel


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("--batch_size", type=cli.positive_int, default=16, help="clips at a time")
    parser.add_argument("--repetitions", type=cli.positive_int, default=7, help="timed runs; the quickest is printed")
    return parser


def main(arguments: argparse.Namespace) -> None:
    device = choose_device(arguments.device)
    cli.say(f"{device}, {torch.get_num_threads()} threads, batch {arguments.batch_size}, torch {torch.__version__}\n")
    cli.say(f"{'':18}{'sound':10}{'extractor ms':>14}{'here ms':>10}{'times faster':>14}")
    noise = 0.3 * torch.randn(arguments.batch_size, 480_000)
    cli.say(f"{'':18}{'FFT alone':24}{1000 * _fft_alone(arguments.repetitions):10.2f}")
    tones = torch.sin(torch.arange(480_000) * 0.06).expand(arguments.batch_size, -1).contiguous()
    for truncation in ("rand_trunc", "fusion"):
        extractor = ClapFeatureExtractor(frequency_min=50, truncation=truncation)
        mel = ClapMel(extractor).to(device)
        for sound, waves in (("noise", noise), ("one tone", tones)):
            row = _Row(extractor, mel, waves, waves.to(device))
            theirs, ours = (_quickest(work, arguments.repetitions) for work in (row.clip_by_clip, row.in_batches))
            per_clip = [1000 * seconds / arguments.batch_size for seconds in (theirs, ours)]
            cli.say(f"{truncation:18}{sound:10}{per_clip[0]:14.2f}{per_clip[1]:10.2f}{theirs / ours:14.1f}")


class _Row:
    """The same clips through both front ends."""

    def __init__(
        self, extractor: ClapFeatureExtractor, mel: ClapMel, waves: torch.Tensor, on_device: torch.Tensor
    ) -> None:
        self.extractor, self.mel, self.waves, self.on_device = extractor, mel, waves.numpy(), on_device

    def clip_by_clip(self) -> None:
        for wave in self.waves:
            self.extractor(wave, sampling_rate=48_000, return_tensors="pt")

    @torch.no_grad()
    def in_batches(self) -> None:
        self.mel(self.on_device).spectrograms.sum().item()


def _fft_alone(repetitions: int) -> float:
    """Seconds for the FFT of one clip's frames on the CPU, in memory that is there already: what no front end saves."""
    frames = torch.randn(1001, 1024)
    spectrum = torch.fft.rfft(frames)
    return _quickest(lambda: torch.fft.rfft(frames, out=spectrum), repetitions)


def _quickest(work: Callable[[], object], repetitions: int) -> float:
    work()
    seconds = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


if __name__ == "__main__":
    cli.run(main, arguments())
