"""Training steps of each stage: the plain computation against the trainer's, in one run.

Both train random weights of the config's sizes on random tokens of whole windows, one batch per step. The plain
computation is `plain_stage.py` with AdamW as a loop over the weights; every other row is a trainer's own step, without
scheduled sampling. Each row is measured in a process of its own. "tokens" are those of all sequences. On a GPU, the
model's operations as a share of its bfloat16 peak are printed too (operations that checkpointing repeats count once).

    python benchmarks/train.py --model_config configs/model/musiclm_small.json

`--fit` prints which batch sizes fit into GPUs of 8, 12, 24 and 80 GB instead, from peaks measured on a GPU.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from generate import window_ids
from measure import Measured, measure_alone
from plain_stage import plain_loss
from training_fit import print_what_fits

from open_musiclm import cli
from open_musiclm.config import STAGE_NAMES, ModelConfig, StageName, load_model_config
from open_musiclm.devices import choose_device
from open_musiclm.models.stages import Stage, build_stage
from open_musiclm.models.token_layout import Ids

# Dense bfloat16 operations a second, in 10^12, by a part of the device's name.
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "4090": 165, "3090": 71}
Case = tuple[Path, StageName, str, int, str, bool, bool]


def arguments() -> argparse.ArgumentParser:
    parser = cli.plain_parser(__doc__)
    cli.add_device_argument(parser)
    cli.add_model_config_argument(parser)
    parser.add_argument("--stages", choices=STAGE_NAMES, nargs="+", help="which stages (default: all)")
    parser.add_argument("--batch_size", type=cli.positive_int, default=2, help="examples a step")
    parser.add_argument("--precisions", choices=cli.PRECISIONS, nargs="+", default=cli.PRECISIONS, help="to measure")
    parser.add_argument("--gradient_checkpointing", action="store_true", help="of the rows that are not plain")
    parser.add_argument("--compile", action="store_true", help="the blocks of the rows that are not plain")
    parser.add_argument("--repetitions", type=cli.positive_int, default=3, help="timed steps; the median is printed")
    parser.add_argument("--fit", action="store_true", help="which batch sizes fit (needs a GPU)")
    return parser


def main(arguments: argparse.Namespace) -> None:
    path, device, batch = arguments.model_config, choose_device(arguments.device), arguments.batch_size
    options = (arguments.gradient_checkpointing, arguments.compile)
    config = load_model_config(path)
    stages = arguments.stages or config.stage_names
    for stage in stages:
        config.check_stage(stage)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    cli.print_stdout(f"{path}, {name}, torch {torch.__version__}\n")
    if arguments.fit:
        print_what_fits(path, device, stages, step, options)
        return
    cli.print_stdout(
        "| stage | batch | computation | tokens/s | times plain | peak MB | of the plain | share of peak |"
    )
    cli.print_stdout("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for stage in stages:
        plain = measure_alone(plain_step, (path, stage, str(device), batch), arguments.repetitions)
        _row(stage, arguments, "plain", plain, plain)
        for precision in arguments.precisions:
            case = (path, stage, str(device), batch, precision, *options)
            title = " + ".join([precision, *[name for name in ("checkpointing", "compile") if _given(name, arguments)]])
            _row(stage, arguments, title, measure_alone(step, case, arguments.repetitions), plain)


def plain_step(path: Path, name: StageName, device: str, batch: int) -> Callable[[], object]:
    """Forward, backward, clipping and AdamW of the plain computation."""
    config = load_model_config(path)
    stage = build_stage(name, config).to(device).train()
    optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-4, foreach=False, fused=False)
    conditioning, predicted = window_ids(stage, config, name, batch, config.window_seconds(name), device)

    def run() -> None:
        plain_loss(stage, [*conditioning, predicted]).backward()
        torch.nn.utils.clip_grad_norm_(stage.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()

    return run


def step(
    path: Path, name: StageName, device: str, batch: int, precision: str, checkpointing: bool, compiled: bool
) -> Callable[[], object]:
    """A trainer's step."""
    from accelerate import Accelerator

    from open_musiclm.config import StageTrainerConfig
    from open_musiclm.training.stage_trainer import StageTools, StageTrainer
    from open_musiclm.training.trainer import IndexedBatch

    config = _without_scheduled_sampling(load_model_config(path))
    keys = {"precision": precision, "gradient_checkpointing": checkpointing, "compile": compiled}
    trainer_config = StageTrainerConfig(
        stage=name, folder="made up", num_train_steps=1, batch_size=batch, lr=1e-4, **keys
    )
    accelerator = Accelerator(cpu=device == "cpu")
    stage = build_stage(name, config)
    trainer = StageTrainer(accelerator, stage, StageTools(config, None, None), trainer_config)
    conditioning, predicted = window_ids(stage, config, name, batch, config.window_seconds(name), device)
    indexed = IndexedBatch([*conditioning, predicted], range(batch))
    return lambda: trainer.train_step(iter([indexed]), 0)


def _without_scheduled_sampling(config: ModelConfig) -> ModelConfig:
    """The plain computation has no second pass that draws tokens, so neither have the steps it is compared with."""
    sections = {f"{name}_cfg": config.stage(name) for name in config.stage_names}
    changed = {key: section.model_copy(update={"scheduled_sampling": 0.0}) for key, section in sections.items()}
    return config.model_copy(update=changed)


def tokens_and_operations(path: Path, name: StageName, batch: int) -> tuple[int, float]:
    """The tokens of a batch, and the model's operations in one step: forward once and backward twice as many."""
    config = load_model_config(path)
    stage = build_stage(name, config)
    conditioning, predicted = window_ids(stage, config, name, 1, config.window_seconds(name), "cpu")
    ids = [*conditioning, predicted]
    operations = _forward_operations(stage, positions(stage, ids), ids[-1])
    return batch * sum(sequence.numel() for sequence in ids), batch * 3 * operations


def positions(stage: Stage, ids: Sequence[Ids]) -> int:
    """The positions of a window with these tokens."""
    with torch.no_grad():
        return stage.layout.embed(ids).x.shape[1]


def _forward_operations(stage: Stage, length: int, predicted: torch.Tensor) -> float:
    """Those of the blocks and of the heads."""
    blocks = stage.layout.transformer.blocks
    weights = sum(weight.numel() for weight in blocks.parameters() if weight.ndim == 2)
    heads = blocks[0].attention.to_query.out_features
    pairs = length * length / 2  # causal
    logits = predicted.numel() * stage.predicted.codebook_size * stage.layout.logit_weights[-1].shape[-1]
    return 2 * (length * weights + 2 * pairs * heads * len(blocks) + logits)


def _given(name: str, arguments: argparse.Namespace) -> bool:
    return arguments.compile if name == "compile" else arguments.gradient_checkpointing


def _row(name: StageName, arguments: argparse.Namespace, title: str, measured: Measured, plain: Measured) -> None:
    tokens, operations = tokens_and_operations(arguments.model_config, name, arguments.batch_size)
    times, memory = plain.seconds / measured.seconds, measured.megabytes / plain.megabytes
    device = choose_device(arguments.device)
    known = [peak for part, peak in PEAKS.items() if device.type == "cuda" and part in torch.cuda.get_device_name()]
    share = f"{operations / measured.seconds / known[0] / 1e12:.1%}" if known else "-"
    cli.print_stdout(
        f"| {name} | {arguments.batch_size} | {title} | {tokens / measured.seconds:.0f} | {times:.2f} "
        f"| {measured.megabytes:.0f} | {memory:.2f} | {share} |"
    )


if __name__ == "__main__":
    cli.run(main, arguments())
