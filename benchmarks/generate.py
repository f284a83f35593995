"""Generation: decode steps per second of each stage with the cache and without, against reading the weights once.

A step makes one token in the flat layout, and a token of every quantizer in the frames layout. Stages have random
weights of the config's sizes: speed does not depend on their values. Cached generation makes `--seconds` of music in
one window. Without the cache, a step costs a pass over all tokens so far; this is timed at 10, 50 and 90 % of the same
window. The weights that are read are those of the blocks and of the heads that a step uses. Every figure comes from its
own process; with `--beside 1` another process uses a core at the same time.

    python benchmarks/generate.py --model_config configs/model/musiclm_small.json --batch_sizes 1 4
"""

import argparse
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from measure import measure_alone

from open_musiclm import cli
from open_musiclm.config import GenerationConfig, ModelConfig, StageName, load_model_config
from open_musiclm.devices import choose_device
from open_musiclm.errors import UserError
from open_musiclm.generation.decoding.generators import stage_generator
from open_musiclm.generation.decoding.sampling import sample_rng, sampling_of
from open_musiclm.models.stages import Stage, build_stage
from open_musiclm.tokens import stage_streams

UNCACHED_AT = (0.1, 0.5, 0.9)
Case = tuple[Path, StageName, str, str, int, float]


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    cli.add_device_argument(parser)
    cli.add_model_config_argument(parser)
    parser.add_argument("--batch_sizes", type=cli.positive_int, nargs="+", default=[1, 4], help="samples at a time")
    parser.add_argument(
        "--precisions", choices=cli.PRECISIONS, nargs="+", default=cli.PRECISIONS, help="of the weights"
    )
    parser.add_argument("--seconds", type=cli.positive_float, default=2.0, help="music to make in each stage")
    parser.add_argument("--beside", type=int, default=0, help="number of other processes that use a core each")
    parser.add_argument(
        "--repetitions", type=cli.positive_int, default=1, help="number of timed runs; the median is printed"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    with busy_processes(arguments.beside):
        _measure(arguments)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Runs `count` other processes, which use a core each."""
    others = [multiprocessing.get_context("spawn").Process(target=_be_busy, daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.terminate()


def _be_busy() -> None:
    while True:
        pass


def _measure(arguments: argparse.Namespace) -> None:
    path, device, seconds = arguments.model_config, str(choose_device(arguments.device)), arguments.seconds
    repetitions = arguments.repetitions
    config = load_model_config(path)
    check_seconds(seconds, config, path)
    cli.print_stdout(f"{path}, {device}, {torch.get_num_threads()} threads, {seconds} s, torch {torch.__version__}\n")
    cli.print_stdout(
        "| stage | precision | batch | steps/s | uncached | faster | ms a step | weights read, ms | ratio | MB |"
    )
    cli.print_stdout("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for batch in arguments.batch_sizes:
        plain = {
            name: measure_alone(uncached, (path, name, device, batch, seconds), 1).seconds / len(UNCACHED_AT)
            for name in config.stage_names
        }
        for precision in arguments.precisions:
            chain = 0.0
            for name in config.stage_names:
                case = (path, name, device, precision, batch, seconds)
                cached = measure_alone(generation, case, repetitions)
                floor = measure_alone(reading, case, 5).seconds
                step = cached.seconds / decode_steps(config, name, seconds)
                chain += cached.seconds
                cli.print_stdout(
                    f"| {name} | {precision} | {batch} | {batch / step:.1f} | {batch / plain[name]:.2f} "
                    f"| {plain[name] / step:.0f} | {1000 * step:.2f} | {1000 * floor:.2f} | {step / floor:.2f} "
                    f"| {cached.megabytes:.0f} |"
                )
            plain_chain = sum(plain[name] * decode_steps(config, name, seconds) for name in config.stage_names)
            cli.print_stdout(
                f"| chain | {precision} | {batch} | {seconds * batch / chain:.3f} times real time "
                f"| {seconds * batch / plain_chain:.5f} times | {plain_chain / chain:.0f} | | | | |"
            )


def generation(
    path: Path, name: StageName, device: str, precision: str, batch: int, seconds: float
) -> Callable[[], object]:
    """`seconds` of one window, from its first token on, with the cache."""
    stage, config = _stage(path, name, device)
    conditioning, predicted = window_ids(stage, config, name, batch, seconds, device)
    generator = stage_generator(stage, getattr(torch, precision))
    del stage  # its memory is not the generator's

    sampling = sampling_of(GenerationConfig(), name)

    def run() -> None:
        rngs = [sample_rng(0, "benchmark", number, name) for number in range(batch)]
        generator.generate(conditioning, predicted[:, :0], predicted.shape[1], sampling, rngs, lambda: None)

    return run


def uncached(path: Path, name: StageName, device: str, batch: int, seconds: float) -> Callable[[], object]:
    """The float32 passes that one step costs without the cache, at three places of the window."""
    stage, config = _stage(path, name, device)
    conditioning, predicted = window_ids(stage, config, name, batch, seconds, device)
    lengths = [max(int(predicted.shape[1] * place), 1) for place in UNCACHED_AT]

    @torch.inference_mode()
    def run() -> None:
        for length in lengths:
            stage.training_logits([*conditioning, predicted[:, :length]], [False] * len(stage.sequences))

    return run


def reading(
    path: Path, name: StageName, device: str, precision: str, batch: int, seconds: float
) -> Callable[[], object]:
    """As many bytes as the weights that a decode step uses have, read once."""
    stage, config = _stage(path, name, device)
    count = sum(weight.numel() for weight in stage.layout.transformer.blocks.parameters())
    count += tokens_per_step(config, name) * stage.predicted.codebook_size * config.stage(name).dim
    content = torch.ones(count * getattr(torch, precision).itemsize // 4, device=device)
    return content.sum


def _stage(path: Path, name: StageName, device: str) -> tuple[Stage, ModelConfig]:
    config = load_model_config(path)
    torch.manual_seed(0)
    return build_stage(name, config).to(device).eval(), config


def check_seconds(seconds: float, config: ModelConfig, path: Path) -> None:
    """Raises UserError if a stage's window is shorter than `seconds`."""
    shortest = min(config.window_seconds(name) for name in config.stage_names)
    if seconds > shortest:
        raise UserError(f"--seconds {seconds}: the shortest window of {path} is {shortest} s")


def tokens_per_step(config: ModelConfig, name: StageName) -> int:
    """The tokens that a decode step makes: one in the flat layout, one of every quantizer in the frames layout."""
    flat = getattr(config.stage(name), "token_layout", "flat") == "flat"
    return 1 if flat else stage_streams(name, config)[-1].quantizers


def decode_steps(config: ModelConfig, name: StageName, seconds: float) -> int:
    """The decode steps of `seconds` of music in one window; in the frames layout, with those of the delay."""
    stream, together = stage_streams(name, config)[-1], tokens_per_step(config, name)
    return stream.frames(seconds) * stream.quantizers // together + together - 1


def window_ids(
    stage: Stage, config: ModelConfig, name: StageName, batch: int, seconds: float, device: str
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Random tokens: the conditioning of a whole window, and the first `seconds` of what is predicted."""
    longest = config.window_seconds(name)
    shapes = [(batch, kind.frames(longest), kind.quantizers) for kind in stage.sequences[:-1]]
    shapes.append((batch, stage.predicted.frames(seconds), stage.predicted.quantizers))
    ids = [
        torch.randint(kind.codebook_size, shape, device=device)
        for kind, shape in zip(stage.sequences, shapes, strict=True)
    ]
    return ids[:-1], ids[-1]


if __name__ == "__main__":
    cli.run(main, arguments())
