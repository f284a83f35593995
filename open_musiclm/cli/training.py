"""The arguments of the scripts that train something."""

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path

from open_musiclm.cli.argument_types import number_in, positive_int
from open_musiclm.cli.model import add_model_config_argument, add_tokenizer_arguments, add_trust_argument
from open_musiclm.cli.process import parser
from open_musiclm.config import ModelConfig, StageName, load_training_config
from open_musiclm.config.lora import LARGEST_LORA_RANK
from open_musiclm.errors import UserError
from open_musiclm.terminal import print_stdout
from open_musiclm.training.options import RunOptions

RUN_FOLDER = "folder for all output; default: results/NAME for the part NAME, or the folder of the resumed run"


def add_config_arguments(to: argparse.ArgumentParser) -> None:
    """`--model_config` and `--training_config`, both required."""
    add_model_config_argument(to)
    to.add_argument("--training_config", type=Path, required=True, help="JSON file with the training config")


def add_run_arguments(to: argparse.ArgumentParser) -> None:
    """`--overwrite` and `--log_with`, of every training script."""
    to.add_argument(
        "--overwrite",
        action="store_true",
        help="delete an older run in the results folder and start over; when resuming there, delete only what comes "
        "after the step",
    )
    to.add_argument(
        "--log_with", choices=("tensorboard", "wandb", "none"), default="tensorboard", help="tracker of the curves"
    )


def add_continue_arguments(to: argparse.ArgumentParser) -> None:
    """`--fine_tune_from`, `--continue_from_dir` and `--continue_from_step`."""
    to.add_argument("--fine_tune_from", type=Path, default=None, help="start from these weights: a file or a folder")
    to.add_argument(
        "--continue_from_dir", type=Path, default=None, help="resume the run of this results or checkpoint folder"
    )
    to.add_argument(
        "--continue_from_step", type=positive_int, default=None, help="resume from this step, not from the newest"
    )


def add_lora_argument(to: argparse.ArgumentParser) -> None:
    """`--lora_rank`, of the scripts that train a stage."""
    to.add_argument(
        "--lora_rank",
        type=number_in(int, 1, LARGEST_LORA_RANK),
        default=None,
        help="train an adapter of this rank on the weights at --fine_tune_from (as lora in the training config)",
    )


def stage_parser(description: str | None) -> argparse.ArgumentParser:
    """The parser of the scripts that train a stage."""
    result = parser(description, RUN_FOLDER)
    add_config_arguments(result)
    add_tokenizer_arguments(result, required=False)
    add_continue_arguments(result)
    add_lora_argument(result)
    add_run_arguments(result)
    add_trust_argument(result)
    return result


def train_stage_from(arguments: argparse.Namespace, name: StageName, config: ModelConfig) -> Path | None:
    """Trains a stage as the command line of a `stage_parser` says, and says where it is: its results folder.

    None in all processes but the main one. Raises UserError, and Interrupted after a signal.
    """
    from open_musiclm.training.train_stage import TokenizerPaths, train_stage

    folder = train_stage(
        name,
        config,
        load_training_config(arguments.training_config),
        run_options_from(arguments, name),
        TokenizerPaths(arguments.rvq_path, arguments.kmeans_path, arguments.trust_remote_code),
        arguments.fine_tune_from,
        arguments.lora_rank,
    )
    if folder is not None:
        print_stdout(f"wrote the {name} stage to {folder}")
    return folder


def backbone_parser(description: str | None) -> argparse.ArgumentParser:
    """The parser of the scripts that train a backbone."""
    result = parser(description, RUN_FOLDER)
    result.add_argument("--config", type=Path, required=True, help="JSON file with the architecture and the trainer")
    add_continue_arguments(result)
    add_run_arguments(result)
    return result


def run_options_from(
    arguments: argparse.Namespace, name: str, continue_option: str = "--continue_from_dir"
) -> RunOptions:
    """The run of a script with `add_run_arguments` and, if it can resume, `add_continue_arguments`.

    `name` is what is trained. Raises UserError if the arguments exclude each other.
    """
    continue_from = getattr(arguments, continue_option.removeprefix("--"), None)
    is_adapter = getattr(arguments, "lora_rank", None) is not None  # whose base may have moved
    if continue_from is not None and getattr(arguments, "fine_tune_from", None) is not None and not is_adapter:
        raise UserError(
            f"--fine_tune_from and {continue_option} exclude each other: one starts a new run, the other resumes one"
        )
    return RunOptions(
        name=name,
        results_folder=arguments.results_folder,
        overwrite=arguments.overwrite,
        log_with=arguments.log_with,
        device=arguments.device,
        continue_from=continue_from,
        continue_from_step=getattr(arguments, "continue_from_step", None),
        continue_option=continue_option,
    )


def repeated(arguments: argparse.Namespace, *names: str) -> str:
    """These arguments as text of another command; a path that was not given is shown as its name in capitals."""
    return flags({name: getattr(arguments, name) or name.removesuffix("_path").upper() for name in names})


def flags(values: Mapping[str, object]) -> str:
    """Arguments by name as text of a command, quoted for a shell."""
    return " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in values.items())
