"""The arguments that edit a given sound instead of generating new music (no torch in here)."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from open_musiclm.cli.argument_types import OFF, positive_int
from open_musiclm.cli.generation import OUTPUT_FIELDS, SAMPLING_FIELDS, add_generation_arguments
from open_musiclm.cli.model import add_model_arguments, load_model
from open_musiclm.cli.process import print_each
from open_musiclm.config import STAGE_NAMES, StageName
from open_musiclm.errors import UserError
from open_musiclm.generation.edit_options import DEFAULT_CANDIDATES, Edit, Infill, Variation

_RANGE = re.compile(r"(\d{1,9}(?:\.\d*)?)-(\d{1,9}(?:\.\d*)?)?")
# Which argument needs which, and which arguments exclude each other, with the reason.
_PARTS = {"num_candidates": "regenerate", "first_stage": "variation_of", "num_variations": "variation_of"}
_REGENERATE = {"duration": "the sound keeps its length", "loudness": "the rest stays as it is"}
_VARIATION = {
    "regenerate": "it regenerates a part of --input_audio",
    "input_audio": "a continuation of one sound cannot be a variation of another",
    "duration": "a variation is as long as its sound",
    **dict.fromkeys(("prompts", "prompts_file", "style_audio", "mix", "story"), "the style is that of the sound"),
}


def add_edit_arguments(to: argparse.ArgumentParser) -> None:
    """`--regenerate` with `--num_candidates`, and `--variation_of` with `--first_stage` and `--num_variations`."""
    to.add_argument(
        "--regenerate",
        type=time_range,
        metavar="START-END",
        help="seconds of --input_audio to regenerate, such as 12-18, or 12- up to its end; the rest is unchanged; "
        "by default in the style of the sound around them",
    )
    to.add_argument(
        "--num_candidates",
        type=positive_int,
        default=None,
        help=f"with --regenerate: number of candidates, of which the best is kept (default: {DEFAULT_CANDIDATES})",
    )
    to.add_argument(
        "--variation_of", type=Path, default=None, help="a sound file to make variations of, in its own style"
    )
    to.add_argument(
        "--first_stage",
        choices=STAGE_NAMES,
        default=None,
        help="with --variation_of: the first stage that runs; semantic keeps only the style, coarse also melody and "
        "rhythm, fine all but details (default: semantic)",
    )
    to.add_argument(
        "--num_variations",
        type=positive_int,
        default=None,
        help="with --variation_of: number of variations (default: 1)",
    )


def add_regeneration_arguments(to: argparse.ArgumentParser, first_stage: StageName) -> None:
    """Sound files to regenerate from `first_stage` on."""
    to.add_argument("sounds", nargs="+", type=Path, metavar="sound", help="a sound file")
    first = STAGE_NAMES.index(first_stage)
    add_model_arguments(to, STAGE_NAMES[first:])
    left_out = ["max_batch_size", *_without_effect(first_stage)]  # one sound at a time
    add_generation_arguments(to, [name for name in (*SAMPLING_FIELDS, *OUTPUT_FIELDS) if name not in left_out])


def regenerate(arguments: argparse.Namespace, first_stage: StageName) -> None:
    """Regenerates these sound files, and says what it wrote. Raises UserError."""
    model, parts = load_model(arguments, first_stage)
    from open_musiclm.generation.edit_files import regenerate_files

    written = regenerate_files(model, arguments.sounds, first_stage, arguments.results_folder, parts)
    print_each(written, len(arguments.sounds), arguments.results_folder, lambda sound: [f"wrote {sound.path}"])


def time_range(text: str) -> tuple[float, float | None]:
    """An argparse type: START-END in seconds; without END up to the end of the sound."""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text}: expected START-END in seconds, such as 12-18, or 12- to the end")
    start, end = float(found[1]), float(found[2]) if found[2] else None
    if end is not None and start >= end:
        raise argparse.ArgumentTypeError(f"{text}: ends before it starts")
    return start, end


def edit_from(arguments: argparse.Namespace) -> Edit | None:
    """The edit of the command line, None for new music. Raises UserError."""
    for name, whole in _PARTS.items():
        if getattr(arguments, name) is not None and getattr(arguments, whole) is None:
            raise UserError(f"--{name}: needs --{whole}")
    if arguments.variation_of is not None:
        first_stage: StageName = arguments.first_stage or "semantic"
        _refuse(arguments, "variation_of", _VARIATION)
        _refuse(arguments, f"first_stage {first_stage}", _without_effect(first_stage))
        return Variation(arguments.variation_of, first_stage, arguments.num_variations or 1)
    if arguments.regenerate is None:
        return None
    if arguments.input_audio is None:
        raise UserError("--regenerate: needs a sound; name it with --input_audio")
    _refuse(arguments, "regenerate", _REGENERATE)
    start, end = arguments.regenerate
    return Infill(arguments.input_audio, start, end, arguments.num_candidates or DEFAULT_CANDIDATES)


def _without_effect(first_stage: StageName) -> dict[str, str]:
    """The generation flags that do nothing from `first_stage` on, with the reason."""
    earlier = STAGE_NAMES[: STAGE_NAMES.index(first_stage)]
    reasons = {f"{stage}_temperature": f"the {stage} stage does not run" for stage in earlier}
    if "semantic" in earlier:
        reasons["semantic_advance"] = reasons["semantic_temperature"]
    if first_stage == "fine":
        reasons["return_coarse_wave"] = "only the fine stage runs"
    return reasons


def _refuse(arguments: argparse.Namespace, edit: str, reasons: Mapping[str, str]) -> None:
    """Raises UserError for an argument that an edit excludes."""
    for name, reason in reasons.items():
        value = getattr(arguments, name)
        if value not in (None, [], OFF) and value is not False:
            flag = "a prompt" if name == "prompts" else f"--{name}"
            raise UserError(f"{flag}: cannot be combined with --{edit}: {reason}")
