"""What the scripts share: argument groups, and how errors reach the person at the terminal.

Imports nothing heavy, so that every script answers `--help` at once; scripts import torch inside `main`.
"""

import argparse
import gc
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from open_musiclm import terminal
from open_musiclm.adapter_arguments import adapter_paths_from, add_adapter_arguments
from open_musiclm.argument_types import (
    OFF,
    STAGES,
    fraction,
    guidance,
    loudness,
    non_negative_float,
    positive_float,
    positive_int,
    share,
)
from open_musiclm.argument_types import prompt as prompt  # for the scripts, as the next
from open_musiclm.argument_types import sample_rate as sample_rate
from open_musiclm.config import GenerationConfig, StageName
from open_musiclm.errors import UserError
from open_musiclm.generation.paths import ModelPaths
from open_musiclm.interruption import Interrupted
from open_musiclm.terminal import say
from open_musiclm.training.options import RunOptions

if TYPE_CHECKING:
    from open_musiclm.generation.musiclm import MusicLM

Result = TypeVar("Result")
MISUSE = 2
INTERRUPTED = 130
SIGNALLED = 128
# What transformers imports where it is there, for losses and pictures: most of a second that generation does not need.
UNUSED_PACKAGES = ("scipy", "torchvision")
PRECISIONS = ("float32", "bfloat16")
# What every inference script takes, and what only those take that are given prompts.
SAMPLING_FIELDS = (
    "seed",
    "semantic_temperature",
    "coarse_temperature",
    "fine_temperature",
    "top_k",
    "top_p",
    "cfg_scale",
    "negative_prompt",
    "precision",
    "max_batch_size",
    "return_coarse_wave",
    "loudness",
)
LENGTH_FIELDS = ("duration", "semantic_advance")
SEARCH_FIELDS = ("num_samples", "num_top_matches")


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options that every script has: `--device` and `--results_folder`."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    result.add_argument(
        "--device", default=None, help="cuda, cuda:1, mps or cpu; without it the best one there is is taken"
    )
    result.add_argument("--results_folder", type=Path, default=None, help="folder that everything is written to")
    return result


def add_config_arguments(to: argparse.ArgumentParser) -> None:
    """`--model_config` and `--training_config`, both required."""
    add_model_config_argument(to)
    to.add_argument("--training_config", type=Path, required=True, help="JSON file with the training config")


def add_model_config_argument(to: argparse.ArgumentParser) -> None:
    """`--model_config`, required."""
    to.add_argument("--model_config", type=Path, required=True, help="JSON file with the model config")


def add_tokenizer_arguments(to: argparse.ArgumentParser, required: bool) -> None:
    """`--rvq_path` and `--kmeans_path`: the CLAP quantizer and the k-means of the semantic tokens."""
    to.add_argument("--rvq_path", type=Path, required=required, help="CLAP RVQ: a checkpoint or its results folder")
    to.add_argument("--kmeans_path", type=Path, required=required, help="k-means: a checkpoint or its results folder")


def add_trust_argument(to: argparse.ArgumentParser) -> None:
    """`--trust_remote_code`, of every script that may load a MERT."""
    to.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="let Python code run that comes with MERT, where it needs such code: read it first",
    )


def add_run_arguments(to: argparse.ArgumentParser) -> None:
    """`--overwrite` and `--log_with`, of every training script."""
    to.add_argument("--overwrite", action="store_true", help="start anew in a results folder that holds an older run")
    to.add_argument(
        "--log_with", choices=("tensorboard", "wandb", "none"), default="tensorboard", help="where curves are drawn"
    )


def add_continue_arguments(to: argparse.ArgumentParser) -> None:
    """`--fine_tune_from`, `--continue_from_dir` and `--continue_from_step`."""
    to.add_argument("--fine_tune_from", type=Path, default=None, help="begin with these weights: a file or a folder")
    to.add_argument(
        "--continue_from_dir", type=Path, default=None, help="go on with the run of this results or checkpoint folder"
    )
    to.add_argument("--continue_from_step", type=positive_int, default=None, help="at this step, not at the newest")


def add_lora_argument(to: argparse.ArgumentParser) -> None:
    """`--lora_rank`, of the scripts that train a stage."""
    to.add_argument(
        "--lora_rank",
        type=positive_int,
        default=None,
        help="train an adapter of this rank on the weights at --fine_tune_from (as lora in the training config)",
    )


def add_checkpoint_arguments(to: argparse.ArgumentParser, first_stage: str = "semantic") -> None:
    """The trained parts from `first_stage` on, one path each."""
    for stage in STAGES[STAGES.index(first_stage) :]:
        to.add_argument(f"--{stage}_path", type=Path, help=f"{stage} stage: a checkpoint or its results folder")
    add_tokenizer_arguments(to, required=False)


def add_model_arguments(to: argparse.ArgumentParser, first_stage: str = "semantic") -> None:
    """The model: one folder, or its parts one by one."""
    to.add_argument("--checkpoint_dir", default=None, help="a bundle: the folder, or hub id, that holds all parts")
    to.add_argument("--model_config", type=Path, default=None, help="JSON file with the model config")
    add_checkpoint_arguments(to, first_stage)
    add_adapter_arguments(to)
    add_trust_argument(to)


def add_generation_arguments(to: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Flags for these fields of `GenerationConfig`; a flag that is left out keeps the bundle's value."""
    for name in names:
        field = GenerationConfig.model_fields[name]
        text = f"{field.description} (of a bundle its own; else {field.default})"
        if field.annotation is bool:
            to.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=text, default=None)
        elif name == "precision":
            to.add_argument(f"--{name}", choices=PRECISIONS, help=text, default=None)
        else:
            to.add_argument(f"--{name}", type=_FLAG_TYPES[name], help=text, default=None)


def add_audio_prompt_argument(to: argparse.ArgumentParser) -> None:
    """A sound to go on from."""
    to.add_argument("--input_audio", type=Path, default=None, help="a sound file to go on from")


def generation_config_from(arguments: argparse.Namespace, base: GenerationConfig) -> GenerationConfig:
    """`base` with what the command line says instead. Raises UserError."""
    flags = {name: getattr(arguments, name, None) for name in GenerationConfig.model_fields}
    said = {name: None if value == OFF else value for name, value in flags.items() if value is not None}
    try:
        return base.updated(said)
    except UserError as error:
        names = "|".join(GenerationConfig.model_fields)
        raise UserError(re.sub(rf"(?<!-)\b({names})\b", r"--\1", str(error))) from error


def model_paths_from(arguments: argparse.Namespace) -> ModelPaths:
    """Where the command line says that the parts are."""
    parts = {name: getattr(arguments, f"{name}_path", None) for name in (*STAGES, "rvq", "kmeans")}
    return ModelPaths(arguments.checkpoint_dir, arguments.model_config, **parts, adapters=adapter_paths_from(arguments))


def load_model(arguments: argparse.Namespace, first_stage: StageName = "semantic") -> "tuple[MusicLM, dict[str, str]]":
    """The model that the command line names, with the stages it needs from `first_stage` on, and where its parts are.

    Raises UserError.
    """
    with hidden(UNUSED_PACKAGES):
        from open_musiclm.generation.loading import load_parts, needed_stages, open_paths
        from open_musiclm.generation.musiclm import MusicLM

    paths, base = open_paths(model_paths_from(arguments))
    config = generation_config_from(arguments, base)
    model_config = paths.read_model_config()
    stages = needed_stages(model_config, config, first_stage)
    parts = load_parts(paths, model_config, stages, arguments.device, arguments.trust_remote_code)
    model = MusicLM(model_config, *parts, config)
    found = {flag: str(path) for flag, path in paths.resolved(stages).items()}
    if paths.adapters:
        found["adapter_path"] = ", ".join(f"{adapter.path} x {adapter.weight:g}" for adapter in paths.adapters)
    return model, found


@contextmanager
def hidden(packages: Iterable[str]) -> Iterator[None]:
    """While entered, packages that are not imported yet are as if they were not installed."""
    names = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type] # None: not there
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def require_arguments(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    """Raises UserError where one of these arguments was not given."""
    missing = [f"--{name}" for name in names if getattr(arguments, name) is None]
    if missing:
        raise UserError(f"missing {', '.join(missing)}")


def add_regeneration_arguments(to: argparse.ArgumentParser, first_stage: str) -> None:
    """Sound files to regenerate from `first_stage` on."""
    to.add_argument("sounds", nargs="+", type=Path, metavar="sound", help="a sound file")
    add_model_arguments(to, first_stage)
    left_out = ("return_coarse_wave",) if first_stage == "fine" else ()
    add_generation_arguments(to, [name for name in SAMPLING_FIELDS if name not in left_out])


def tell_each(results: Iterable[Result], total: int, folder: Path, describe: Callable[[Result], Iterable[str]]) -> None:
    """Says the lines of each result as soon as it is written; where that ends early, how many are in `folder`.

    SIGTERM and SIGHUP end the process with status 143 and 129, after it has cleaned up.
    """
    done = 0
    asked = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _exit_by_signal) for number in asked}  # nohup ignores SIGHUP
    try:
        for result in results:
            done += 1
            for line in describe(result):
                say(line)
    except BaseException as error:
        if done or not isinstance(error, UserError):  # of what was refused at once, one line is enough
            terminal.tell(f"not finished: {done} of {total} are written, in {folder}")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_by_signal(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(SIGNALLED + number)


def run(main: Callable[[argparse.Namespace], None], arguments: argparse.ArgumentParser) -> None:
    """Parses the command line and runs `main`.

    Misuse ends with one clear line and exit status 2, a run that a signal stopped with 128 and the signal's number.
    """
    terminal.escape_what_cannot_be_encoded()
    warnings.showwarning = terminal.show_warning
    parsed = arguments.parse_args()
    if sys.platform == "win32":
        terminal.tell("error: Windows is not supported; use Linux, macOS, or Linux within Windows (WSL)")
        sys.exit(MISUSE)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    status = 0
    try:
        main(parsed)
    except UserError as error:
        terminal.tell(f"error: {error}")
        _leave(MISUSE)
    except OSError as error:
        if error.errno is None and not isinstance(error, shutil.Error):
            raise
        terminal.tell(f"error: {terminal.describe(error)}")
        _leave(MISUSE)
    except KeyboardInterrupt:
        terminal.tell("interrupted")
        _leave(INTERRUPTED)
    except Interrupted as error:
        status = error.exit_status
    _end_process_group()
    terminal.end_output()
    if status:
        sys.exit(status)


def _leave(status: int) -> NoReturn:
    """Ends this process; one of several at once, for the others may wait for it in an operation that never ends."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _end_process_group() -> None:
    """Ends the group of a run on several processes, now that no model holds it any more: torch would wait for ever."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()


_FLAG_TYPES: dict[str, Callable[[str], object]] = {
    "seed": int,
    "duration": positive_float,
    "semantic_advance": fraction,
    "semantic_temperature": non_negative_float,
    "coarse_temperature": non_negative_float,
    "fine_temperature": non_negative_float,
    "top_k": positive_int,
    "top_p": share,
    "cfg_scale": guidance,
    "negative_prompt": prompt,
    "max_batch_size": positive_int,
    "loudness": loudness,
    "num_samples": positive_int,
    "num_top_matches": positive_int,
}


def run_options_from(
    arguments: argparse.Namespace, name: str, continue_option: str = "--continue_from_dir"
) -> RunOptions:
    """The run of a script with `add_run_arguments` and, if it can go on, `add_continue_arguments`.

    `name` is what is trained. Raises UserError where the arguments exclude each other.
    """
    continue_from = getattr(arguments, continue_option.removeprefix("--"), None)
    is_adapter = getattr(arguments, "lora_rank", None) is not None  # whose base may have moved
    if continue_from is not None and getattr(arguments, "fine_tune_from", None) is not None and not is_adapter:
        raise UserError(f"--fine_tune_from and {continue_option} exclude each other: new weights, or an old run")
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
    """These arguments as words of another command; a path that was not given stands as its name in capitals."""
    values = {name: getattr(arguments, name) or name.removesuffix("_path").upper() for name in names}
    return " ".join(f"--{name} {value}" for name, value in values.items())
