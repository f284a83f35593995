"""The command line of the memorization measurement, and what it says (no torch in here)."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from open_musiclm.cli.argument_types import LARGEST_SEED, number_in, positive_int, share
from open_musiclm.config import ModelConfig
from open_musiclm.generation.paths import ModelPaths

if TYPE_CHECKING:
    from torch import Tensor

    from open_musiclm.evaluation.memorization import MemorizationOptions
    from open_musiclm.generation.stage_generator import StageGenerator

PROMPT_SECONDS = (0, 1, 2, 5)


@dataclass(frozen=True)
class SemanticStage:
    """A semantic stage for generation, the centroids of its tokens [codes, dim], its config and where it is from."""

    stage: "StageGenerator"
    centroids: "Tensor"
    config: ModelConfig
    paths: Mapping[str, str]


def add_memorization_arguments(to: argparse.ArgumentParser) -> None:
    """What is measured, and on how much."""
    to.add_argument("--tokens", type=Path, required=True, help="token store of the training")
    to.add_argument("--unseen_tokens", type=Path, default=None, help="token store of other music, to compare with")
    to.add_argument(
        "--prompt_seconds",
        type=number_in(int, 0, 600),
        nargs="+",
        default=list(PROMPT_SECONDS),
        help="seconds that are given",
    )
    to.add_argument(
        "--num_examples", type=number_in(int, 2, 1_000_000), default=200, help="stretches of music, of one file each"
    )
    to.add_argument(
        "--false_positives", type=share, default=1e-4, help="share of wrong pairs that may match approximately"
    )
    to.add_argument("--permutations", type=positive_int, default=20, help="wrong pairs for each right one")
    to.add_argument("--seed", type=number_in(int, 0, LARGEST_SEED), default=0, help="seed of what is drawn")


def options_from(arguments: argparse.Namespace) -> "MemorizationOptions":
    """What the command line says is measured."""
    from open_musiclm.evaluation.memorization import MemorizationOptions

    return MemorizationOptions(
        arguments.prompt_seconds,
        arguments.num_examples,
        arguments.false_positives,
        arguments.permutations,
        arguments.seed,
    )


def load_semantic_stage(paths: ModelPaths, device: str | None) -> SemanticStage:
    """The semantic stage of a model, without the rest of it. Raises UserError."""
    from open_musiclm.devices import choose_device
    from open_musiclm.generation.generators import stage_generator
    from open_musiclm.generation.loading import open_paths
    from open_musiclm.models.stages import load_stage
    from open_musiclm.tokenizers.mert import load_centroids

    paths, _ = open_paths(paths)
    config, found = paths.read_model_config(), paths.resolved(["semantic"])
    stage = load_stage(found["semantic_path"], "semantic", config, choose_device(device))
    centroids = load_centroids(found["kmeans_path"], config)
    return SemanticStage(stage_generator(stage), centroids, config, {name: str(path) for name, path in found.items()})
