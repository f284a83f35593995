"""Compares codecs and decoders on held-out sound.

Each row is the codec of a model config, with the decoder that it names, and some of its first codebooks. log-mel and
STFT are distances of spectrograms in nats (open_musiclm/metrics/spectral_distance.py); "between partials" is the energy
in the valleys of the spectrum, also given for the original; "next frame" is the cross-entropy of a frame in nats, given
the previous one (with --training); the real-time factor is seconds of sound per second, encoded and decoded on the CPU.
With --note_tracker (basic-pitch's nmp.onnx) two columns more: frames with a confident note, also of the original, and
the median length of notes relative to the original's.

    python benchmarks/codecs.py --clips held_out --training corpus demo/configs/model.json:3 demo/configs/model.json:8
"""

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from clips import beginnings
from code_prediction import nats_per_frame
from jaxtyping import Float
from note_tracker import NoteTracker, confident_share, notes_of
from torch import Tensor

from open_musiclm import cli
from open_musiclm.config import load_model_config
from open_musiclm.errors import UserError
from open_musiclm.metrics.codec import si_sdr
from open_musiclm.metrics.partials import energy_between_partials
from open_musiclm.metrics.spectral_distance import SpectralDistance
from open_musiclm.tokenizers.codec import Codec

_CPU = torch.device("cpu")
_TRAINING_SECONDS = 30.0  # of a clip that frames are predicted from, at most


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument("codecs", nargs="+", help="model configs, each with :N for its first N codebooks")
    parser.add_argument("--clips", type=Path, required=True, help="folder of held-out sound")
    parser.add_argument("--seconds", type=cli.positive_float, default=8.0, help="of each clip, from its beginning")
    parser.add_argument("--most_clips", type=cli.positive_int, default=64, help="clips that are measured")
    parser.add_argument("--training", type=Path, default=None, help="folder of sound that frames are predicted from")
    parser.add_argument("--training_clips", type=cli.positive_int, default=400, help="clips of it that are used")
    parser.add_argument("--note_tracker", type=Path, default=None, help="basic-pitch's model, nmp.onnx")
    parser.add_argument("--prediction_steps", type=cli.positive_int, default=1500, help="steps of that prediction")
    return parser


def main(arguments: argparse.Namespace) -> None:
    torch.set_grad_enabled(False)
    cli.print_stdout(f"{arguments.clips}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    cli.print_stdout(
        "| codec | decoder | codebooks | kbps | tokens/s | log-mel | STFT | SI-SDR, dB | "
        "between partials, dB (original) | least usage | next frame, nats | real-time factor | "
        "frames with a note (original) | note length |"
    )
    cli.print_stdout("| --- " * 14 + "|")
    tracker = NoteTracker(arguments.note_tracker) if arguments.note_tracker is not None else None
    for name in arguments.codecs:
        config, _, count = name.partition(":")
        model_config = load_model_config(Path(config))
        codec = Codec.load(model_config, _CPU)
        used = int(count) if count else codec.quantizers
        if not 1 <= used <= codec.quantizers:
            raise UserError(f"{name}: {used} codebooks, the config has {codec.quantizers}")
        decoder = model_config.encodec_cfg.decoder
        label = Path(decoder).name if decoder is not None else "its own"
        cli.print_stdout(f"| {config} | {label} | {_measured(codec, used, tracker, arguments)} |")


def _measured(codec: Codec, used: int, tracker: NoteTracker | None, arguments: argparse.Namespace) -> str:
    distance, rows, codes, seconds = SpectralDistance(codec.sample_hz), [], [], 0.0
    notes = Notes(tracker)
    for wave in beginnings(arguments.clips, codec.sample_hz, arguments.seconds, arguments.most_clips):
        begun = time.perf_counter()
        codes.append(codec.encode(wave)[..., :used])
        decoded = codec.decode(codes[-1])[:, : wave.shape[1]]
        seconds += time.perf_counter() - begun
        notes.add(decoded[0], wave[0], codec.sample_hz)
        distances = distance(decoded, wave)
        partials = [energy_between_partials(some, codec.sample_hz) for some in (decoded, wave)]
        stft = distances.convergence + distances.magnitude
        rows.append(torch.cat([distances.mel, stft, si_sdr(decoded, wave), *partials, torch.tensor([wave.shape[1]])]))
    if not rows:
        raise UserError(f"{arguments.clips}: no clip of {arguments.seconds} s or more")
    mel, stft, sdr, found, original, _ = torch.stack(rows).mean(0).tolist()
    total = sum(float(row[-1]) for row in rows) / codec.sample_hz
    rate = codec.sample_hz / codec.hop
    kbps = used * torch.log2(torch.tensor(codec.codebook_size)).item() * rate / 1000
    columns = torch.cat([some[0] for some in codes]).unbind(-1)
    usage = min(len(column.unique()) for column in columns) / codec.codebook_size
    nats = _nats(codec, used, [some[0] for some in codes], arguments)
    return (
        f"{used} x {codec.codebook_size} | {kbps:.2f} | {used * rate:g} | {mel:.3f} | {stft:.3f} | {sdr:.1f} | "
        f"{found:.1f} ({original:.1f}) | {usage:.0%} | {nats} | {total / seconds:.1f} | {notes}"
    )


class Notes:
    """Notes of decoded clips relative to those of the originals; two empty columns without a tracker."""

    def __init__(self, tracker: NoteTracker | None) -> None:
        self.tracker = tracker
        self.shares: list[tuple[float, float]] = []
        self.lengths: tuple[list[float], list[float]] = ([], [])

    def add(self, decoded: Float[Tensor, "samples"], wave: Float[Tensor, "samples"], sample_hz: int) -> None:
        """Counts a clip."""
        if self.tracker is None:
            return
        both = [self.tracker.activations(some, sample_hz) for some in (decoded, wave)]
        self.shares.append((confident_share(both[0]), confident_share(both[1])))
        for lengths, activations in zip(self.lengths, both, strict=True):
            lengths += [note.seconds for note in notes_of(activations)]

    def __str__(self) -> str:
        if not self.shares or not all(self.lengths):
            return " | "
        found, original = (sum(values) / len(values) for values in zip(*self.shares, strict=True))
        ratio = median(self.lengths[0]) / median(self.lengths[1])
        return f"{found:.2f} ({original:.2f}) | {ratio:.0%}"


def _nats(codec: Codec, used: int, held_out: list[Tensor], arguments: argparse.Namespace) -> str:
    if arguments.training is None:
        return ""
    waves = beginnings(arguments.training, codec.sample_hz, _TRAINING_SECONDS, arguments.training_clips, shorter=True)
    training = [codec.encode(wave)[0, :, :used] for wave in waves]
    with torch.enable_grad():
        nats = nats_per_frame(training, held_out, codec.codebook_size, arguments.prediction_steps)
    return f"{sum(nats):.1f} ({', '.join(f'{value:.1f}' for value in nats)})"


if __name__ == "__main__":
    cli.run(main, arguments())
