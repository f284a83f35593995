"""The flags that say how to generate: fields of `GenerationConfig`."""

import argparse
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

from open_musiclm.cli.argument_types import (
    OFF,
    guidance,
    loudness,
    non_negative_float,
    positive_float,
    positive_fraction,
    positive_int,
    prompt,
    share,
)
from open_musiclm.config import GenerationConfig, Precision
from open_musiclm.errors import UserError

PRECISIONS: tuple[str, ...] = get_args(Precision)
# The fields that are flags, and what reads each: a type, or the choices there are.
Reader = Callable[[str], object] | tuple[str, ...]
LENGTH_FIELDS: dict[str, Reader] = {"duration": positive_float, "semantic_advance": positive_fraction}
SEARCH_FIELDS: dict[str, Reader] = {"num_samples": positive_int, "num_top_matches": positive_int}
SAMPLING_FIELDS: dict[str, Reader] = {
    "seed": int,
    "semantic_temperature": non_negative_float,
    "coarse_temperature": non_negative_float,
    "fine_temperature": non_negative_float,
    "top_k": positive_int,
    "top_p": share,
    "cfg_scale": guidance,
    "negative_prompt": prompt,
    "precision": PRECISIONS,
    "max_batch_size": positive_int,
    "return_coarse_wave": bool,
}
OUTPUT_FIELDS: dict[str, Reader] = {"loudness": loudness}  # of files that generation writes with their JSON
_FIELDS = LENGTH_FIELDS | SEARCH_FIELDS | SAMPLING_FIELDS | OUTPUT_FIELDS


def add_generation_arguments(to: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Flags for these fields of `GenerationConfig`; without a flag the bundle's value stays."""
    for name in names:
        field, reader = GenerationConfig.model_fields[name], _FIELDS[name]
        without = "" if field.default is None else f", or {field.default} without one"
        removed = "; off removes the bundle's value" if reader in (prompt, loudness) else ""
        text = f"{field.description}{removed} (default: the bundle's value{without})"
        if reader is bool:
            to.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=text, default=None)
        elif isinstance(reader, tuple):
            to.add_argument(f"--{name}", choices=reader, help=text, default=None)
        else:
            to.add_argument(f"--{name}", type=reader, help=text, default=None)


def add_audio_prompt_argument(to: argparse.ArgumentParser) -> None:
    """`--input_audio`: a sound to continue."""
    to.add_argument("--input_audio", type=Path, default=None, help="a sound file to continue")


def generation_config_from(arguments: argparse.Namespace, base: GenerationConfig) -> GenerationConfig:
    """`base` with the values of the command line. Raises UserError.

    A script without `--num_top_matches` lowers it to `--num_samples`.
    """
    flags = {name: getattr(arguments, name, None) for name in GenerationConfig.model_fields}
    overrides = {name: None if value == OFF else value for name, value in flags.items() if value is not None}
    samples = flags["num_samples"]
    if samples is not None and not hasattr(arguments, "num_top_matches"):
        overrides["num_top_matches"] = min(base.num_top_matches, samples)
    try:
        return base.updated(overrides)
    except UserError as error:
        names = "|".join(GenerationConfig.model_fields)
        raise UserError(re.sub(rf"(?<!-)\b({names})\b", r"--\1", str(error))) from error
