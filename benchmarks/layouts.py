"""Compares token layouts of the acoustic stages: positions, steps, and seconds of music per second.

For one model config with its layout changed: flat, frames, and frames with one acoustic stage for all codebooks. Stages
have random weights of the config's sizes. Generation makes `--seconds` of music in one window; training uses whole
windows. "activations" is the peak memory of a training step minus weights, gradients and optimizer. Each figure comes
from its own process; compare figures of one run only.

    python benchmarks/layouts.py --model_config configs/model/musiclm_small.json
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from generate import generation
from measure import measure_alone
from train import step

from open_musiclm import cli
from open_musiclm.config import ModelConfig, StageName, load_model_config
from open_musiclm.config.json_files import read_json
from open_musiclm.devices import choose_device
from open_musiclm.models.stages import build_stage
from open_musiclm.tokens import stage_streams

_BYTES_OF_TRAINING = 12  # per weight, besides itself: its gradient and AdamW's two moments


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    cli.add_device_argument(parser)
    cli.add_model_config_argument(parser)
    parser.add_argument("--precision", choices=cli.PRECISIONS, default="bfloat16", help="of generation and training")
    parser.add_argument("--batch_size", type=cli.positive_int, default=1, help="samples, and examples of a step")
    parser.add_argument("--seconds", type=cli.positive_float, default=2.0, help="music to generate in each stage")
    parser.add_argument(
        "--repetitions", type=cli.positive_int, default=3, help="number of timed runs; the median is printed"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    device = choose_device(arguments.device)
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    batch, precision = arguments.batch_size, arguments.precision
    cli.say(f"{arguments.model_config}, {device}{threads}, batch {batch}, {precision}, torch {torch.__version__}\n")
    cli.say(
        "| layout | stage | window, s | positions | steps/s of music | generated s/s | trained s/s | activations, MB |"
    )
    cli.say("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for layout, path in _variants(arguments.model_config, Path(folder)).items():
            _measure_layout(layout, path, str(device), arguments)


def _measure_layout(layout: str, path: Path, device: str, arguments: argparse.Namespace) -> None:
    config = load_model_config(path)
    batch, seconds, precision = arguments.batch_size, arguments.seconds, arguments.precision
    chain = 0.0
    for name in config.stage_names:
        stage = build_stage(name, config)
        weights = sum(weight.numel() for weight in stage.parameters()) * _BYTES_OF_TRAINING / 2**20
        window = config.window_seconds(name)
        made = measure_alone(generation, (path, name, device, precision, batch, seconds), arguments.repetitions)
        case = (path, name, device, batch, precision, False, False)
        trained = measure_alone(step, case, arguments.repetitions)
        chain += made.seconds
        activations = trained.megabytes - trained.megabytes_before - weights
        cli.say(
            f"| {layout} | {name} | {window:g} | {positions(name, config)} | {steps_per_second(name, config)} "
            f"| {batch * seconds / made.seconds:.2f} | {batch * window / trained.seconds:.2f} | {activations:.0f} |"
        )
    cli.say(f"| {layout} | chain | | | | {batch * seconds / chain:.2f} | | |")


def positions(name: StageName, config: ModelConfig) -> int:
    """The positions of a stage's window in training."""
    stage, window = build_stage(name, config), config.window_seconds(name)
    ids = [torch.zeros(1, s.frames(window), s.quantizers, dtype=torch.long) for s in stage_streams(name, config)]
    with torch.no_grad():
        return stage.layout.embed(ids).x.shape[1]


def steps_per_second(name: StageName, config: ModelConfig) -> int:
    """The decode steps that a stage takes for a second of music, within a window."""
    stream = stage_streams(name, config)[-1]
    assert stream.frame_hz is not None
    flat = getattr(config.stage(name), "token_layout", "flat") == "flat"
    return stream.frame_hz * (stream.quantizers if flat else 1)


def _variants(path: Path, folder: Path) -> dict[str, Path]:
    """The config in each layout, as files."""
    content, variants = read_json(path), {}
    quantizers = load_model_config(path).num_acoustic_quantizers
    for title, layout, split in (
        ("flat", "flat", {}),
        ("frames", "frames", {}),
        ("frames, one stage", "frames", {"num_coarse_quantizers": quantizers, "num_fine_quantizers": 0}),
    ):
        content["global_cfg"] |= split
        for section in ("coarse_cfg", "fine_cfg"):
            content[section] = {**content[section], "token_layout": layout}
        variants[title] = folder / f"{title}.json"
        variants[title].write_text(json.dumps(content), encoding="utf-8")
    return variants


if __name__ == "__main__":
    cli.run(main, arguments())
