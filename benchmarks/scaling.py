"""The cost of many hours of music: operations, days, bytes and files, from counts and a measured rate.

The rate is what benchmarks/preprocess.py or scripts/preprocess_data.py print for one GPU (seconds of sound per
second). Without it, only the counts are printed: the backbones' floating-point operations are counted on the released
architectures without computing anything.

    python benchmarks/scaling.py --hours 100000 --rate 5
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import ClapConfig, ClapModel, HubertConfig, HubertModel

from open_musiclm import cli
from open_musiclm.config import load_model_config
from open_musiclm.data.store_description import stored_hz
from open_musiclm.data.token_store_writer import SHARD_BYTES, TOKEN_BYTES
from open_musiclm.tokenizers.encodec_directory import EncodecArchitecture, build_encodec
from open_musiclm.tokens import token_streams

GPU_COUNTS = (8, 64, 512)
CROP_SECONDS = 30
SHIPPED = Path(__file__).resolve().parents[1] / "configs" / "model" / "musiclm_small.json"


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    parser.add_argument("--hours", type=cli.positive_float, default=100_000.0, help="of music")
    parser.add_argument("--track_seconds", type=cli.positive_float, default=240.0, help="length of a file")
    parser.add_argument("--rate", type=cli.positive_float, help="seconds of sound that one GPU tokenizes per second")
    parser.add_argument(
        "--worker_rate", type=cli.positive_float, help="seconds of sound that one worker process decodes per second"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    seconds = 3600 * arguments.hours
    config = load_model_config(SHIPPED)
    stored = TOKEN_BYTES * sum(stored_hz(stream) * stream.quantizers for stream in token_streams(config).values())
    layers = config.hubert_kmeans_cfg.embed_layer
    work = {"CLAP": clap_operations(), "MERT": mert_operations(layers), "EnCodec": encodec_operations()}
    parts = ", ".join(f"{name} {operations / 1e9:.1f}" for name, operations in work.items())
    cli.print_stdout(f"billions of operations for a second of sound: {parts}")
    files = seconds / arguments.track_seconds
    cli.print_stdout(f"{arguments.hours:,.0f} hours: {seconds * sum(work.values()):.2e} operations, {files:,.0f} files")
    size, shards = seconds * stored / 1e9, seconds * stored / SHARD_BYTES
    cli.print_stdout(f"store: {stored} bytes a second, {size:,.0f} GB, {shards:,.0f} shards")
    if arguments.rate is None:
        return
    cli.print_stdout(f"\nat {arguments.rate:g} seconds of sound a second and GPU")
    cli.print_stdout(f"{'GPUs':>6}{'days':>10}{'files opened a second':>23}{'stored MB/s':>13}{'shards a second':>17}")
    for gpus in GPU_COUNTS:
        rate = gpus * arguments.rate
        cli.print_stdout(
            f"{gpus:6}{seconds / rate / 86400:10.2f}{rate / arguments.track_seconds:23.2f}"
            f"{rate * stored / 1e6:13.2f}{rate * stored / SHARD_BYTES:17.3f}"
        )
    if arguments.worker_rate is not None:
        cli.print_stdout(f"workers that decode for one GPU: {arguments.rate / arguments.worker_rate:.1f}")


def clap_operations() -> float:
    """One window of ten seconds a second."""
    with torch.device("meta"):
        model = ClapModel(ClapConfig()).audio_model.eval()
        return _counted(lambda: model(torch.empty(1, 1, 1001, 64), is_longer=torch.empty(1, 1, dtype=torch.bool)))


def mert_operations(layers: int) -> float:
    """The first `layers` layers, over a whole crop."""
    with torch.device("meta"):
        model = HubertModel(HubertConfig(num_hidden_layers=layers)).eval()
        return _counted(lambda: model(torch.empty(1, 16000 * CROP_SECONDS))) / CROP_SECONDS


def encodec_operations() -> float:
    """The encoder without its LSTM, which PyTorch does not count."""
    with torch.device("meta"):
        model = build_encodec(EncodecArchitecture(lstm=0)).eval()
        return _counted(lambda: model.encoder(torch.empty(1, 1, 24000 * CROP_SECONDS))) / CROP_SECONDS


def _counted(work: Callable[[], object]) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


if __name__ == "__main__":
    cli.run(main, arguments())
