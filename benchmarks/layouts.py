"""Compares token layouts of the acoustic stages: positions, steps, and seconds of music per second.

For any model config, with its layout changed: flat, frames, and frames with one acoustic stage for all codebooks (left
out where the config already has one). Stages have random weights of the config's sizes. Generation makes `--seconds` of
music in one window; training uses whole windows. "activations" is the peak memory of a training step minus weights,
gradients and optimizer. Each figure comes from its own process; compare figures of one run only.

    python benchmarks/layouts.py --model_config configs/model/musiclm_small.json
    python benchmarks/layouts.py --model_config configs/model/musiclm_small_frames.json --layouts frames --windows 4 10
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from generate import check_seconds, generation, tokens_per_step, window_ids
from measure import measure_alone
from train import positions, step

from open_musiclm import cli
from open_musiclm.config import ModelConfig, StageName, load_model_config
from open_musiclm.config.json_files import read_json
from open_musiclm.devices import choose_device
from open_musiclm.models.stages import build_stage
from open_musiclm.tokens import stage_streams

LAYOUTS = ("flat", "frames", "one_stage")
_BYTES_OF_TRAINING = 12  # per weight, besides itself: its gradient and AdamW's two moments
_FLAT_ONLY = ("conditioning_time_bias", "non_causal_prefix_size", "use_absolute_position_embeddings")
_FRAMES_ONLY = ("clap_per_frame",)


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    cli.add_device_argument(parser)
    cli.add_model_config_argument(parser)
    parser.add_argument("--layouts", choices=LAYOUTS, nargs="+", default=LAYOUTS, help="which to measure")
    parser.add_argument(
        "--windows",
        type=cli.positive_float,
        nargs="+",
        help="of the acoustic stages, in seconds (default: the config's)",
    )
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
    with tempfile.TemporaryDirectory() as folder:
        windows = arguments.windows or [None]
        compared = list(variants(arguments.model_config, arguments.layouts, windows, Path(folder)))
        for _, path in compared:
            check_seconds(arguments.seconds, load_model_config(path), arguments.model_config)
        cli.print_stdout(
            f"{arguments.model_config}, {device}{threads}, batch {batch}, {precision}, torch {torch.__version__}\n"
        )
        cli.print_stdout(
            "| layout | stage | window, s | positions | steps/s of music | generated s/s | trained s/s "
            "| activations, MB |"
        )
        cli.print_stdout("| --- | --- | --- | --- | --- | --- | --- | --- |")
        semantic = _measure_stage("all", "semantic", arguments.model_config, str(device), arguments)
        for title, path in compared:
            names = load_model_config(path).stage_names[1:]
            acoustic = sum(_measure_stage(title, name, path, str(device), arguments) for name in names)
            cli.print_stdout(f"| {title} | chain | | | | {batch * arguments.seconds / (semantic + acoustic):.2f} | | |")


def _measure_stage(title: str, name: StageName, path: Path, device: str, arguments: argparse.Namespace) -> float:
    """Prints the figures of a stage; returns the seconds that generation took."""
    config = load_model_config(path)
    batch, seconds, precision = arguments.batch_size, arguments.seconds, arguments.precision
    weights = sum(weight.numel() for weight in build_stage(name, config).parameters()) * _BYTES_OF_TRAINING / 2**20
    window = config.window_seconds(name)
    made = measure_alone(generation, (path, name, device, precision, batch, seconds), arguments.repetitions)
    case = (path, name, device, batch, precision, False, False)
    trained = measure_alone(step, case, arguments.repetitions)
    activations = trained.megabytes - trained.megabytes_before - weights
    cli.print_stdout(
        f"| {title} | {name} | {window:g} | {window_positions(name, config)} | {steps_per_second(name, config)} "
        f"| {batch * seconds / made.seconds:.2f} | {batch * window / trained.seconds:.2f} | {activations:.0f} |"
    )
    return made.seconds


def window_positions(name: StageName, config: ModelConfig) -> int:
    """The positions of a stage's window in training."""
    stage, window = build_stage(name, config), config.window_seconds(name)
    conditioning, predicted = window_ids(stage, config, name, 1, window, "cpu")
    return positions(stage, [*conditioning, predicted])


def steps_per_second(name: StageName, config: ModelConfig) -> int:
    """The decode steps that a stage takes for a second of music, within a window."""
    stream = stage_streams(name, config)[-1]
    assert stream.frame_hz is not None
    return stream.frame_hz * stream.quantizers // tokens_per_step(config, name)


def variants(
    path: Path, layouts: Sequence[str], windows: Sequence[float | None], folder: Path
) -> Iterator[tuple[str, Path]]:
    """The config at `path` in each layout and with each acoustic window (None: its own), as titles and files."""
    config = load_model_config(path)
    for layout in layouts:
        if layout == "one_stage" and "fine" not in config.stage_names:
            continue
        for window in windows:
            changed = folder / f"{layout}_{window}.json"
            content = _changed(read_json(path), layout, window, config.num_acoustic_quantizers)
            changed.write_text(json.dumps(content), encoding="utf-8")
            yield layout.replace("one_stage", "frames, one stage"), changed


def _changed(content: dict[str, Any], layout: str, window: float | None, quantizers: int) -> dict[str, Any]:
    """A model config's JSON with another layout, and another window of the acoustic stages if it is given."""
    windows, sections = dict(content["global_cfg"]), {}
    if layout == "one_stage":
        windows |= {"num_coarse_quantizers": quantizers, "num_fine_quantizers": 0}
    if window is not None:
        windows |= {f"{name}_audio_length_seconds": window for name in ("coarse", "fine")}
    for name in ("coarse_cfg", "fine_cfg"):
        others = _FRAMES_ONLY if layout == "flat" else _FLAT_ONLY
        kept = {key: value for key, value in content[name].items() if key not in others}
        sections[name] = {**kept, "token_layout": "flat" if layout == "flat" else "frames"}
    return {**content, "global_cfg": windows, **sections}


if __name__ == "__main__":
    cli.run(main, arguments())
