"""Compares frame rates of a spectral codec at equal bit rates, trained or not.

A codec is a directory that scripts/train_spectral_codec.py wrote, or RATE:CODEBOOKSxSIZE, which stands for what that
script starts from: a linear map to the principal components of a frame of the log-frequency spectrogram, with residual
codebooks fitted to them. "spectrogram" is the distance in nats of the
spectrogram decoded from the codes, on held-out sound. The nats to predict a frame given the previous one are those of
benchmarks/code_prediction.py. From too few training clips nothing is learned: then they exceed the logarithm of the
size of a codebook.

    python benchmarks/frame_rates.py 25:6x1024 40:4x512 50:3x1024 75:2x1024 --clips held_out --training corpus
"""

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from clips import beginnings
from code_prediction import nats_per_frame
from jaxtyping import Float
from torch import Tensor

from open_musiclm import cli
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.spectral_codec import SpectralArchitecture, SpectralCodec, SpectralModel
from open_musiclm.training.backbones.codebooks import quantize_and_update

_SAMPLE_HZ, _SPECTROGRAM_HZ = 24000, 100
_CODEBOOK_STEPS, _CODEBOOK_FRAMES, _CODEBOOK_DECAY, _DEAD = 60, 8192, 0.9, 0.1

Waves = Sequence[Float[Tensor, "1 samples"]]


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument("codecs", nargs="+", type=_codec, help="RATE:CODEBOOKSxSIZE, or a spectral codec's directory")
    parser.add_argument("--clips", type=Path, required=True, help="folder of held-out sound")
    parser.add_argument("--training", type=Path, required=True, help="folder of sound that codecs are fitted to")
    parser.add_argument("--seconds", type=cli.positive_float, default=8.0, help="of each clip, from its beginning")
    parser.add_argument("--most_clips", type=cli.positive_int, default=64, help="clips of --clips")
    parser.add_argument("--training_clips", type=cli.positive_int, default=200, help="clips of --training")
    parser.add_argument("--prediction_steps", type=cli.positive_int, default=500, help="steps of the prediction")
    return parser


def main(arguments: argparse.Namespace) -> None:
    training, held_out = (
        list(beginnings(folder, _SAMPLE_HZ, arguments.seconds, most))
        for folder, most in ((arguments.training, arguments.training_clips), (arguments.clips, arguments.most_clips))
    )
    if not training or not held_out:
        raise UserError(f"--training, --clips: one has no clip of {arguments.seconds} s or more")
    cli.print_stdout("| frames/s | codebooks | kbps | spectrogram | nats a frame | nats a second |")
    cli.print_stdout("| --- " * 6 + "|")
    for named in arguments.codecs:
        codec = SpectralCodec.load(named).eval() if isinstance(named, Path) else _fitted(named, training)
        cli.print_stdout(f"| {_measured(codec, training, held_out, arguments.prediction_steps)} |")


def _codec(text: str) -> Path | SpectralArchitecture:
    """A directory, or a codec of RATE:CODEBOOKSxSIZE with about a hundred spectrogram frames a second."""
    if Path(text).is_dir():
        return Path(text)
    found = re.fullmatch(r"(\d+):(\d+)x(\d+)", text)
    if not found or not int(found[1]) or _SAMPLE_HZ % int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r}: expected for example 25:6x1024; the rate divides {_SAMPLE_HZ}")
    rate, codebooks, size = map(int, found.groups())
    hop = _SAMPLE_HZ // rate
    lengths = [length for length in range(1, 129) if hop % length == 0]
    length = min(lengths, key=lambda length: abs(math.log(rate * length / _SPECTROGRAM_HZ)))
    return SpectralArchitecture(spectrogram_hop=hop // length, frame_length=length, n_q=codebooks, bins=size)


@torch.no_grad()
def _fitted(architecture: SpectralArchitecture, training: Waves) -> SpectralCodec:
    torch.manual_seed(0)
    model = SpectralModel(architecture).eval()
    frames = -(-training[0].shape[1] // model.hop) * model.frame_length
    spectrograms = torch.cat([model.spectrogram(wave, frames) for wave in training])
    model.fit_linear_maps(spectrograms)
    latents = model.encoder.linear(spectrograms).transpose(1, 2).flatten(0, 1)
    rng = np.random.default_rng(0)
    for _ in range(_CODEBOOK_STEPS):
        chosen = latents[torch.from_numpy(rng.integers(len(latents), size=_CODEBOOK_FRAMES))]
        quantize_and_update(model.quantizer, chosen.T[None], architecture.n_q, _CODEBOOK_DECAY, _DEAD, rng)
    return SpectralCodec(model, architecture)


def _measured(codec: SpectralCodec, training: Waves, held_out: Waves, steps: int) -> str:
    distances = []
    with torch.no_grad():
        coded, coded_held_out = (
            [codec.encode(wave, codec.codebooks)[0] for wave in some] for some in (training, held_out)
        )
        for wave, codes in zip(held_out, coded_held_out, strict=True):
            spectrogram, _ = codec.model.encode(wave)
            decoded = codec.model.decoder(codec.latents(codes[None]))
            distances.append(float((decoded - spectrogram).abs().mean()))
    nats = nats_per_frame(coded, coded_held_out, codec.codebook_size, steps)
    rate, each = codec.sample_hz / codec.hop, ", ".join(f"{value:.1f}" for value in nats)
    return (
        f"{rate:g} | {codec.codebooks} x {codec.codebook_size} | {codec.bandwidths[-1]:.2f} | {mean(distances):.3f} | "
        f"{sum(nats):.1f} ({each}) | {sum(nats) * rate:.0f}"
    )


if __name__ == "__main__":
    cli.run(main, arguments())
