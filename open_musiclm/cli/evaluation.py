"""The command line of evaluation (no torch in here)."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from open_musiclm.cli.argument_types import LARGEST_SEED, number_in, positive_int
from open_musiclm.cli.generation import LENGTH_FIELDS, OUTPUT_FIELDS, SAMPLING_FIELDS, SEARCH_FIELDS
from open_musiclm.config import MODEL_CONFIG_NAME, STAGE_NAMES
from open_musiclm.errors import UserError
from open_musiclm.evaluation.options import (
    CLIP_SECONDS,
    DEFAULT_METRICS,
    METRICS,
    NEEDS_MODEL,
    EvaluationOptions,
)
from open_musiclm.evaluation.set_names import GENERATED, named_sets

if TYPE_CHECKING:
    from open_musiclm.evaluation.measure import Measure

_OF_GENERATION = [
    *(name for name in (*LENGTH_FIELDS, *SEARCH_FIELDS, *SAMPLING_FIELDS, *OUTPUT_FIELDS) if name != "seed"),
    *("rvq_path", "kmeans_path", *(f"{stage}_path" for stage in STAGE_NAMES), "adapter_path", "adapter_weight"),
]


def add_evaluation_arguments(to: argparse.ArgumentParser) -> None:
    """Adds the arguments of an evaluation."""
    to.add_argument("folders", nargs="*", type=Path, metavar="folder", help="folder of sound to evaluate")
    to.add_argument("--reference", type=Path, required=True, help="folder of reference music")
    to.add_argument(
        "--prompts",
        type=Path,
        default=None,
        help="generate for these prompts first: a text file, one per line, or captions.jsonl",
    )
    to.add_argument("--num_prompts", type=positive_int, default=None, help="only the first prompts of --prompts")
    to.add_argument("--metrics", nargs="+", choices=METRICS, default=list(DEFAULT_METRICS), help="which metrics")
    to.add_argument(
        "--embedding_config",
        type=Path,
        default=None,
        help="model config whose CLAP and MERT embed, instead of the model's own",
    )
    to.add_argument(
        "--seconds", type=number_in(float, *CLIP_SECONDS), default=None, help="use the first seconds of every clip only"
    )
    to.add_argument(
        "--max_clips", type=positive_int, default=None, help="largest number of clips per folder, chosen at random"
    )
    to.add_argument(
        "--bootstrap", type=number_in(int, 2, 100_000), default=100, help="resamplings for the intervals of distances"
    )
    to.add_argument(
        "--cache_folder", type=Path, default=Path("results/evaluation_cache"), help="folder of stored measurements"
    )


def options_from(
    arguments: argparse.Namespace, folders: Sequence[Path], checkpoint: Mapping[str, str]
) -> EvaluationOptions:
    """The options of the command line."""
    from open_musiclm.evaluation.distances import Resampling

    return EvaluationOptions(
        folders,
        arguments.reference,
        list(dict.fromkeys(arguments.metrics)),
        arguments.results_folder,
        arguments.cache_folder,
        Resampling(arguments.seed or 0, arguments.bootstrap),
        arguments.max_clips,
        arguments.seconds,
        checkpoint,
    )


def named_models(arguments: argparse.Namespace) -> dict[str, str]:
    """The models that the command line names, by the names of their arguments."""
    names = ("checkpoint_dir", "model_config", "embedding_config")
    return {name: str(value) for name in names if (value := getattr(arguments, name)) is not None}


def measures_from(arguments: argparse.Namespace) -> "dict[str, Measure]":
    """The models that the command line names, loaded as measures. Raises UserError."""
    from open_musiclm.checkpoints.bundle import open_bundle
    from open_musiclm.devices import choose_device
    from open_musiclm.evaluation.loaded_models import ModelChoice, load_measures

    own = arguments.model_config
    if own is None and arguments.checkpoint_dir is not None:
        own = open_bundle(arguments.checkpoint_dir) / MODEL_CONFIG_NAME
    if own is None and arguments.embedding_config is None and NEEDS_MODEL.intersection(arguments.metrics):
        raise UserError(
            "no model to embed with: give --checkpoint_dir, --model_config or --embedding_config, or ask for "
            "--metrics tempo levels only"
        )
    choice = ModelChoice(arguments.embedding_config, own, choose_device(arguments.device), arguments.trust_remote_code)
    return load_measures(arguments.metrics, choice)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raises UserError if a folder holds no sound, or there is nothing to evaluate: before anything is generated."""
    from open_musiclm.audio import find_sounds

    if not 0 <= (arguments.seed or 0) <= LARGEST_SEED:
        raise UserError(f"--seed {arguments.seed}: expected 0 to {LARGEST_SEED}")
    if not arguments.folders and arguments.prompts is None:
        raise UserError("nothing to evaluate: name a folder of sound, or give --prompts to generate for")
    if arguments.num_prompts is not None and arguments.prompts is None:
        raise UserError("--num_prompts: needs --prompts")
    unused = [name for name in _OF_GENERATION if arguments.prompts is None and getattr(arguments, name) is not None]
    if unused:
        raise UserError(f"--{unused[0]}: is for what --prompts generates; give --prompts, or leave it out")
    generated = [] if arguments.prompts is None else [arguments.results_folder / GENERATED]
    named_sets([*generated, *arguments.folders], arguments.reference)
    for folder in (arguments.reference, *arguments.folders):
        find_sounds(folder)
