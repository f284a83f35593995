"""What the scripts share: argument groups, and how errors reach the person at the terminal.

Imports nothing heavy, so that every script answers `--help` at once; scripts import torch inside `main`.
"""

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from open_musiclm.errors import UserError

MISUSE = 2
INTERRUPTED = 130
STAGES = ("semantic", "coarse", "fine")
PRECISIONS = ("float32", "bfloat16")


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


def add_run_arguments(to: argparse.ArgumentParser) -> None:
    """`--overwrite` and `--log_with`: what every training script takes."""
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


def add_checkpoint_arguments(to: argparse.ArgumentParser, first_stage: str = "semantic") -> None:
    """The trained parts from `first_stage` on, one path each."""
    for stage in STAGES[STAGES.index(first_stage) :]:
        to.add_argument(f"--{stage}_path", type=Path, help=f"{stage} stage: a checkpoint or its results folder")
    add_tokenizer_arguments(to, required=False)
    to.set_defaults(ear_path=None)
    if first_stage == "semantic":
        to.add_argument("--ear_path", type=Path, help="ear for rhythm, if any: a checkpoint or its results folder")


def add_inference_arguments(to: argparse.ArgumentParser, first_stage: str = "semantic") -> None:
    """The trained parts, by one folder or one by one, and how to generate with them."""
    to.add_argument("--checkpoint_dir", default=None, help="a bundle: the folder, or hub id, that holds all parts")
    to.add_argument("--model_config", type=Path, default=None, help="JSON file with the model config")
    add_checkpoint_arguments(to, first_stage)
    to.add_argument("--seed", type=int, default=0, help="the same seed, prompt and number give the same music")
    to.set_defaults(return_coarse_wave=False)
    if first_stage != "fine":
        add_coarse_wave_argument(to)
    add_sampling_arguments(to)


def require_arguments(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    """Raises UserError where one of these arguments was not given."""
    missing = [f"--{name}" for name in names if getattr(arguments, name) is None]
    if missing:
        raise UserError(f"missing {', '.join(missing)}")


def add_coarse_wave_argument(to: argparse.ArgumentParser) -> None:
    """Whether the fine stage is left out."""
    to.add_argument(
        "--return_coarse_wave",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="leave the fine stage out: quicker, rougher",
    )


def add_sampling_arguments(to: argparse.ArgumentParser) -> None:
    """Temperatures, top k, top p, guidance, the precision and the batch."""
    for stage, temperature in zip(STAGES, (1.0, 0.95, 0.4), strict=True):
        to.add_argument(
            f"--{stage}_temperature",
            type=non_negative_float,
            default=temperature,
            help=f"of the {stage} stage; 0 takes the likeliest token",
        )
    to.add_argument("--top_k", type=positive_int, default=None, help="ids to draw from; by default a tenth of them")
    to.add_argument("--top_p", type=share, default=None, help="draw from the fewest ids that hold this probability")
    to.add_argument(
        "--cfg_scale",
        type=guidance,
        default="1",
        help="above 1, follow what a stage is given more closely; one number, or one for each stage, as in 4,2.5,1; "
        "only for stages trained with condition_dropout",
    )
    to.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the stages' weights; bfloat16 is quicker, and float32 gives the same music on every machine",
    )
    to.add_argument("--max_batch_size", type=positive_int, default=16, help="samples generated at the same time")


def add_prompt_arguments(to: argparse.ArgumentParser) -> None:
    """How much music, and after what."""
    to.add_argument("--duration", type=positive_float, default=4.0, help="seconds of new music")
    to.add_argument("--input_audio", type=Path, default=None, help="a sound file to go on from")


def add_drafts_argument(to: argparse.ArgumentParser) -> None:
    """How many coarse waves compete."""
    to.add_argument(
        "--num_drafts",
        type=positive_int,
        default=None,
        help="have so many coarse waves compete for each sample, window by window; the fine stage finishes the winner",
    )


def add_sketches_argument(to: argparse.ArgumentParser) -> None:
    """How many semantic token sequences compete."""
    to.add_argument(
        "--num_sketches",
        type=positive_int,
        default=None,
        help="with --num_drafts, have the ear for rhythm choose among so many semantic sketches of each sample first",
    )


def check_drafts(arguments: argparse.Namespace) -> None:
    """Raises UserError where there are more drafts or sketches than a batch holds, or sketches without drafts."""
    drafts, sketches, batch = arguments.num_drafts, arguments.num_sketches, arguments.max_batch_size
    if sketches is not None and (drafts is None or sketches > batch):
        raise UserError(
            f"--num_sketches {sketches}: takes --num_drafts, and a --max_batch_size of at least {sketches}, for the "
            "sketches of a sample compete within one batch"
        )
    if drafts is not None and drafts > batch:
        raise UserError(
            f"--num_drafts {drafts} is above --max_batch_size {batch}, but the drafts of a sample compete within one "
            "batch; raise --max_batch_size"
        )


def add_regeneration_arguments(to: argparse.ArgumentParser, first_stage: str) -> None:
    """Sound files to regenerate from `first_stage` on."""
    to.add_argument("sounds", nargs="+", type=Path, metavar="sound", help="a sound file")
    add_inference_arguments(to, first_stage)


def run(main: Callable[[argparse.Namespace], None], arguments: argparse.ArgumentParser) -> None:
    """Parses the command line and runs `main`; misuse ends with one clear line and exit status 2."""
    parsed = arguments.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        main(parsed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        _leave(MISUSE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        _leave(INTERRUPTED)
    _end_process_group()


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


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def positive_float(text: str) -> float:
    """An argparse type: a finite number above 0 (seconds, hours)."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def non_negative_float(text: str) -> float:
    """An argparse type: a finite number of at least 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not at least 0")
    return value


def guidance(text: str) -> tuple[float, ...]:
    """Numbers of at least 0 for the semantic, the coarse and the fine stage; one number is for all of them."""
    numbers = tuple(non_negative_float(part) for part in text.split(","))
    if len(numbers) not in (1, len(STAGES)):
        raise argparse.ArgumentTypeError(f"{text}: expected one number, or one for each of {', '.join(STAGES)}")
    return numbers * (len(STAGES) // len(numbers))


def share(text: str) -> float:
    """An argparse type: a number above 0, at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def prompt(text: str) -> str:
    """An argparse type: a prompt that holds at least one visible character."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the prompt is empty; describe the music in a few words")
    if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
        raise argparse.ArgumentTypeError("the prompt is not valid text in this terminal's encoding")
    return text


def say(line: str) -> None:
    """Tells the person at the terminal what happened, at once."""
    print(line, flush=True)
