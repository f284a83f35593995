"""Write a deeper stage that computes the same: copies of some blocks, whose output weights are zero, behind these.

Training goes on from it with `--fine_tune_from`; in its model config the stage's depth is larger by the number of
copies. The block expansion of Wu et al. 2024 (LLaMA Pro), with all blocks trained. The demo's semantic stage was
extended from four blocks to eight in this way.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from open_musiclm import cli

if TYPE_CHECKING:
    from torch import Tensor

BLOCKS = "transformer.blocks."
OUTPUTS = ("attention.to_output.weight", "feedforward.to_output.weight")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", type=Path, help="weights of the stage: a checkpoint, or its folder")
    cli.add_model_config_argument(parser)
    parser.add_argument("--stage", choices=cli.STAGE_NAMES, required=True, help="the stage")
    parser.add_argument(
        "--after",
        type=cli.positive_int,
        nargs="+",
        required=True,
        metavar="BLOCK",
        help="the blocks to copy, counted from 1; `--after 3 6` makes eight of six",
    )
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    return parser


def main(arguments: argparse.Namespace) -> None:
    import torch

    from open_musiclm.checkpoints import check_new_output, save_weights, trained_config
    from open_musiclm.config import load_model_config
    from open_musiclm.errors import UserError
    from open_musiclm.models.stages import load_stage

    check_new_output(arguments.output)
    config = load_model_config(arguments.model_config)
    section = config.stage(arguments.stage)
    if max(arguments.after) > section.depth:
        raise UserError(f"--after {max(arguments.after)}: the {arguments.stage} stage has {section.depth} blocks")
    stage = load_stage(arguments.checkpoint, arguments.stage, config, torch.device("cpu"))
    trained = trained_config(arguments.checkpoint, arguments.stage, config)
    deeper = trained.stage(arguments.stage).model_copy(update={"depth": section.depth + len(arguments.after)})
    tensors = with_copies(stage.layout.state_dict(), section.depth, arguments.after)
    config = trained.model_copy(update={f"{arguments.stage}_cfg": deeper})
    save_weights(arguments.output, arguments.stage, tensors, config)
    cli.print_stdout(f"wrote {arguments.output}; set {arguments.stage}_cfg.depth {deeper.depth} in the model config")


def with_copies(tensors: "dict[str, Tensor]", depth: int, after: Sequence[int]) -> "dict[str, Tensor]":
    """A stage's tensors with a copy of each block in `after`, counted from 1, behind it."""
    import torch

    deeper = {name: tensor for name, tensor in tensors.items() if not name.startswith(BLOCKS)}
    sources = sorted([*range(depth), *(number - 1 for number in after)])
    for place, source in enumerate(sources):
        is_copy = place > 0 and sources[place - 1] == source
        prefix = f"{BLOCKS}{source}."
        for name, tensor in tensors.items():
            if name.startswith(prefix):
                part = name.removeprefix(prefix)
                deeper[f"{BLOCKS}{place}.{part}"] = (
                    torch.zeros_like(tensor) if is_copy and part in OUTPUTS else tensor.clone()
                )
    return deeper


if __name__ == "__main__":
    cli.run(main, arguments())
