"""The weights in a stage's checkpoint: all of the stage, or its adapter only."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from open_musiclm.checkpoints import load_into, load_weights, save_weights, weights_name
from open_musiclm.checkpoints.adapters import Adapter, adapter_name, load_adapter, save_adapter
from open_musiclm.config import ModelConfig
from open_musiclm.config.lora import LoraConfig
from open_musiclm.errors import UserError
from open_musiclm.models.lora import adapter_tensors, load_adapter_tensors
from open_musiclm.models.stages import Stage
from open_musiclm.training.distributed import sharded_like, whole_weights


class StageFile(ABC):
    """Writes and reads the weights of a stage in training. All processes call both, process 0 writes."""

    @abstractmethod
    def write(self, folder: Path, stage: Stage, is_main: bool) -> None:
        """Writes the weights into a checkpoint folder, as inference reads them. Raises UserError."""

    @abstractmethod
    def read(self, folder: Path, stage: Stage) -> None:
        """Reads the weights of a checkpoint folder. Raises UserError."""


@dataclass(frozen=True)
class WholeStageFile(StageFile):
    """{stage}.safetensors."""

    model_config: ModelConfig

    def write(self, folder: Path, stage: Stage, is_main: bool) -> None:
        """See `StageFile.write`."""
        tensors = whole_weights(stage.layout)
        if is_main:
            save_weights(folder / weights_name(stage.name), stage.name, tensors, self.model_config)

    def read(self, folder: Path, stage: Stage) -> None:
        """See `StageFile.read`."""
        weights = load_weights(folder / weights_name(stage.name), stage.name)
        load_into(stage.layout, replace(weights, tensors=_sharded(weights.tensors, stage.layout.state_dict())))


@dataclass(frozen=True)
class AdapterFile(StageFile):
    """{stage}_adapter.safetensors, of an adapter for the weights at `base` with that fingerprint."""

    lora: LoraConfig
    base: Path
    fingerprint: str

    def write(self, folder: Path, stage: Stage, is_main: bool) -> None:
        """See `StageFile.write`."""
        tensors = adapter_tensors(whole_weights(stage.layout))
        if is_main:
            path = folder / adapter_name(stage.name)
            save_adapter(Adapter(path, stage.name, self.lora, self.fingerprint, str(self.base), tensors))

    def read(self, folder: Path, stage: Stage) -> None:
        """See `StageFile.read`."""
        adapter = load_adapter(folder / adapter_name(stage.name))
        adapter.check_base(stage.name, self.fingerprint, self.base)
        if adapter.lora.scale != self.lora.scale:
            raise UserError(
                f"{adapter.path}: its updates are scaled by {adapter.lora.scale:g}, and the lora section here says "
                f"{self.lora.scale:g} (alpha / rank); keep alpha and rank when you resume"
            )
        own = adapter_tensors(stage.layout.state_dict())
        load_adapter_tensors(stage, _sharded(adapter.tensors, own), adapter.path)


def _sharded(tensors: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: sharded_like(tensor, like[name]) if name in like else tensor for name, tensor in tensors.items()}
