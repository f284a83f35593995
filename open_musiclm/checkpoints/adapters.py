"""Adapter files: the LoRA matrices of one stage in safetensors, with the fingerprint of the weights they are for."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from open_musiclm import __version__
from open_musiclm.checkpoints.finite import check_finite
from open_musiclm.checkpoints.tensor_files import read_tensors
from open_musiclm.checkpoints.weights import chosen_step, save_tensors, step_folder
from open_musiclm.config import STAGE_NAMES, StageName
from open_musiclm.config.json_files import section_from_json
from open_musiclm.config.lora import LoraConfig
from open_musiclm.errors import UserError
from open_musiclm.files import atomic_write

ADAPTER_FORMAT = "open_musiclm_adapter"
ADAPTERS_FOLDER = "adapters"  # of a bundle
WEIGHTS_NAME = "weights.json"  # in it: the weight of each file; 1 if it is not named
_NAME = "adapter.safetensors"
_KEYS = ("stage", "base_fingerprint", "base", "lora")
_SHOWN = 12  # digits of a fingerprint in a message


@dataclass(frozen=True)
class Adapter:
    """The LoRA matrices of a stage by name, and the base weights that they need.

    `fingerprint` identifies the base weights; `base` was their path in training, for messages and for resuming.
    """

    path: Path
    stage: StageName
    lora: LoraConfig
    fingerprint: str
    base: str
    tensors: dict[str, Tensor]

    def check_stage(self, stage: str, base: Path | str) -> None:
        """Raises UserError if this is no adapter of the stage at `base`."""
        if self.stage != stage:
            raise UserError(f"{self.path}: an adapter of the {self.stage} stage; {base} is the {stage} stage")

    def check_base(self, stage: StageName, fingerprint: str, base: Path | str) -> None:
        """Raises UserError if this is no adapter of the `stage` weights at `base`, which have that fingerprint."""
        self.check_stage(stage, base)
        if self.fingerprint != fingerprint:
            raise UserError(
                f"{self.path}: made for other weights than {base} (fingerprint {self.fingerprint[:_SHOWN]} there, "
                f"{fingerprint[:_SHOWN]} here); give the base that it was trained on, which was {self.base}"
            )


def adapter_name(stage: StageName) -> str:
    """The file name of a stage's adapter within a checkpoint folder."""
    return f"{stage}_{_NAME}"


def find_adapters(path: Path) -> list[Path]:
    """The adapter files that `path` means: itself; or in a folder all files that end in adapter.safetensors; or those
    of the chosen checkpoint of a results folder. Raises UserError if there is none."""
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"{path}: no such adapter")
        return [path]
    step = chosen_step(path)
    folder = path if step is None else step_folder(path, step)
    found = sorted(folder.glob(f"*{_NAME}"))
    if not found:
        raise UserError(f"{path}: holds no adapter (no file that ends in {_NAME}); give what a LoRA training wrote")
    return found


def save_adapter(adapter: Adapter) -> None:
    """Writes an adapter at its path, atomically.

    Raises UserError, also if it holds NaN or infinity.
    """
    check_finite(adapter.tensors, adapter.path)
    metadata = {
        "format": ADAPTER_FORMAT,
        "stage": adapter.stage,
        "open_musiclm_version": __version__,
        "base_fingerprint": adapter.fingerprint,
        "base": adapter.base,
        "lora": adapter.lora.model_dump_json(),
    }
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.tensors.items()}
    with atomic_write(adapter.path) as temporary:
        try:
            save_tensors(contiguous, temporary, metadata)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise UserError(f"{adapter.path}: cannot write: {error}") from error


def load_adapter(path: Path) -> Adapter:
    """Reads an adapter file. Raises UserError, also if it holds NaN or infinity, or is no adapter."""
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != ADAPTER_FORMAT or any(key not in metadata for key in _KEYS):
        whole = "; it holds a whole stage" if "model_config" in metadata else ""
        raise UserError(f"{path}: not an adapter of open_musiclm (its metadata lacks format={ADAPTER_FORMAT}){whole}")
    stage = next((name for name in STAGE_NAMES if name == metadata["stage"]), None)
    if stage is None:
        raise UserError(f"{path}: an adapter of stage {metadata['stage'][:40]!r}; expected {', '.join(STAGE_NAMES)}")
    lora = section_from_json(metadata["lora"], f"{path}: lora", LoraConfig)
    return Adapter(path, stage, lora, metadata["base_fingerprint"], metadata["base"], tensors)
