"""The arguments that name a model: a bundle, or its parts one by one, and LoRA adapters on its stages."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from open_musiclm.cli.argument_types import OFF, finite_float
from open_musiclm.cli.generation import generation_config_from
from open_musiclm.config import STAGE_NAMES, ModelConfig, StageName
from open_musiclm.errors import UserError
from open_musiclm.generation.paths import AdapterPath, ModelPaths

if TYPE_CHECKING:
    from open_musiclm.generation.musiclm import MusicLM

# transformers imports them, if installed, for losses and images: most of a second that generation does not need.
UNUSED_PACKAGES = ("scipy", "torchvision")


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
        help="allow Python code that comes with MERT to run, if the model needs it; read the code first",
    )


def add_checkpoint_arguments(to: argparse.ArgumentParser, stages: Sequence[StageName] = STAGE_NAMES) -> None:
    """The trained parts, one path each: these stages, the quantizer and the k-means."""
    for stage in stages:
        to.add_argument(f"--{stage}_path", type=Path, help=f"{stage} stage: a checkpoint or its results folder")
    add_tokenizer_arguments(to, required=False)


def add_adapter_arguments(to: argparse.ArgumentParser) -> None:
    """`--adapter_path` and `--adapter_weight`, which may be repeated."""
    to.add_argument(
        "--adapter_path",
        action="append",
        default=None,
        help="a LoRA adapter: its file, a folder of such, or the results folder of its training; may be given several "
        f"times; {OFF}: none, not even those of the bundle",
    )
    to.add_argument(
        "--adapter_weight",
        action="append",
        type=finite_float,
        default=None,
        help="factor of the adapter at the same place (default: 1)",
    )


def add_model_arguments(to: argparse.ArgumentParser, stages: Sequence[StageName] = STAGE_NAMES) -> None:
    """The model: one folder, or its parts one by one."""
    add_part_arguments(to, stages)
    add_trust_argument(to)


def add_part_arguments(to: argparse.ArgumentParser, stages: Sequence[StageName]) -> None:
    """The same for a script that loads no backbone, and so needs no `--trust_remote_code`."""
    to.add_argument("--checkpoint_dir", default=None, help="a bundle: the folder, or hub id, that holds all parts")
    to.add_argument("--model_config", type=Path, default=None, help="JSON file with the model config")
    add_checkpoint_arguments(to, stages)
    add_adapter_arguments(to)


def model_paths_from(arguments: argparse.Namespace) -> ModelPaths:
    """The paths of the command line."""
    parts = {name: getattr(arguments, f"{name}_path", None) for name in (*STAGE_NAMES, "rvq", "kmeans")}
    return ModelPaths(arguments.checkpoint_dir, arguments.model_config, **parts, adapters=adapter_paths_from(arguments))


def adapter_paths_from(arguments: argparse.Namespace) -> list[AdapterPath] | None:
    """The adapters that the command line names, None if it names none. Raises UserError."""
    paths, weights = arguments.adapter_path, arguments.adapter_weight or []
    if paths is None and not weights:
        return None
    if paths is None or len(weights) not in (0, len(paths)):
        raise UserError(
            f"--adapter_weight: given {len(weights)} times, and --adapter_path {len(paths or ())} times; give one "
            "weight for each adapter, or none"
        )
    if OFF in paths:
        if len(paths) > 1 or weights:
            raise UserError(f"--adapter_path {OFF}: means no adapter; leave out the others and --adapter_weight")
        return []
    return [AdapterPath(Path(path), weight) for path, weight in zip(paths, weights or [1.0] * len(paths), strict=True)]


def check_fine_arguments(arguments: argparse.Namespace, config: ModelConfig) -> None:
    """Raises UserError for an argument about the fine stage if the model has none."""
    if "fine" in config.stage_names:
        return
    for name in ("fine_path", "fine_temperature", "return_coarse_wave"):
        value = getattr(arguments, name, None)
        if value is not None and value is not False:  # a temperature may be 0
            raise UserError(f"--{name}: this model has no fine stage (num_fine_quantizers 0); leave it out")


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
    check_fine_arguments(arguments, model_config)
    parts = load_parts(paths, model_config, stages, arguments.device, arguments.trust_remote_code)
    model = MusicLM(model_config, *parts, config)
    return model, paths.described(stages)


@contextmanager
def hidden(packages: Iterable[str]) -> Iterator[None]:
    """Hides packages that are not imported yet: they seem not to be installed."""
    names = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type] # None: not there
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
