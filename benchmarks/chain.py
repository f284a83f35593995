"""Seconds and memory of every part of the chain, for any model config.

Generation and training steps use fresh weights of the config's sizes; tokenizers are the config's own backbones
where they can be loaded. Prints one table; each row is measured in a process of its own.

    python benchmarks/chain.py --model_config demo/configs/model.json
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from generate import check_seconds, generation, window_ids
from measure import Measured, measure_alone

from open_musiclm import audio, cli
from open_musiclm.config import StageName, load_model_config
from open_musiclm.devices import choose_device
from open_musiclm.errors import UserError
from open_musiclm.models.stages import build_stage


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    cli.add_device_argument(parser)
    cli.add_model_config_argument(parser)
    parser.add_argument("--batch_size", type=cli.positive_int, default=1, help="examples, or samples, at a time")
    parser.add_argument("--seconds", type=cli.positive_float, default=1.0, help="music to generate in each stage")
    parser.add_argument(
        "--repetitions", type=cli.positive_int, default=3, help="number of timed runs; the median is printed"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    path, device, batch = arguments.model_config, str(choose_device(arguments.device)), arguments.batch_size
    config = load_model_config(path)
    check_seconds(arguments.seconds, config, path)
    cli.print_stdout(f"{path}, batch {batch}, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    cli.print_stdout(f"{'':34}{'seconds':>10}{'per second of sound':>21}{'peak MB':>9}")
    for name in config.stage_names:
        sound = arguments.seconds * batch
        case = (path, name, device, "float32", batch, arguments.seconds)
        _row(f"generate {name}", sound, generation, case, arguments)
    for name in config.stage_names:
        window = config.window_seconds(name)
        _row(f"training step {name}", window * batch, training_step, (path, name, device, batch), arguments)
    for part in ("clap", "mert", "encodec"):
        _row(f"tokenize {part}", 10.0 * batch, tokenizing, (path, part, device, batch), arguments)


def training_step(path: Path, name: StageName, device: str, batch: int) -> Callable[[], object]:
    """Forward, backward and AdamW on one batch of whole windows."""
    config = load_model_config(path)
    stage = build_stage(name, config).to(device).train()
    optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-4)
    conditioning, predicted = window_ids(stage, config, name, batch, config.window_seconds(name), device)

    def run() -> None:
        stage([*conditioning, predicted]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def tokenizing(path: Path, part: str, device: str, batch: int) -> Callable[[], object]:
    """Ten seconds of noise through one backbone."""
    from open_musiclm.tokenizers.clap import Clap
    from open_musiclm.tokenizers.codec import Codec
    from open_musiclm.tokenizers.mert import Mert

    config, on = load_model_config(path), torch.device(device)
    backbone: Clap | Mert | Codec = {"clap": Clap, "mert": Mert, "encodec": Codec}[part].load(config, on)
    waves = 0.1 * torch.randn(batch, audio.samples_of(10.0, backbone.sample_hz), device=on)
    if isinstance(backbone, Clap):
        return functools.partial(backbone.embed_audio, waves)
    return functools.partial(backbone.features if isinstance(backbone, Mert) else backbone.encode, waves)


def _row(
    title: str,
    seconds_of_sound: float,
    work: Callable[..., Callable[[], object]],
    work_arguments: tuple,
    arguments: argparse.Namespace,
) -> None:
    try:
        measured: Measured = measure_alone(work, work_arguments, arguments.repetitions)
    except UserError as error:
        cli.print_stdout(f"{title:34}not measured: {error}")
        return
    per_second = measured.seconds / seconds_of_sound
    cli.print_stdout(f"{title:34}{measured.seconds:10.3f}{per_second:21.4f}{measured.megabytes:9.0f}")


if __name__ == "__main__":
    cli.run(main, arguments())
