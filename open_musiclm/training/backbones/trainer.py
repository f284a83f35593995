"""What the trainers of backbones share: their checkpoints, which are directories that a model config can name."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator
from torch import nn

from open_musiclm.checkpoints.foreign import WEIGHTS_NAME
from open_musiclm.checkpoints.state_comparison import load_state
from open_musiclm.checkpoints.tensor_files import read_tensors
from open_musiclm.training.optimizer import Optimizer
from open_musiclm.training.trainer import Batch, Resumable, Trainer


class BackboneTrainer(Trainer[Batch]):
    """A checkpoint holds the model as a directory of its own, called `name`."""

    unit = "seconds of sound"
    accelerator: Accelerator
    optimizer: Optimizer
    discriminator: Optimizer | None = None

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Writes the model's own directory."""

    @abstractmethod
    def start_from(self, directory: Path) -> None:
        """Reads the weights of a model directory. Raises UserError."""

    def write_weights(self, folder: Path) -> None:
        """See `Trainer.write_weights`."""
        if self.accelerator.is_main_process:
            self.save(folder / self.name)

    def read_weights(self, folder: Path) -> None:
        """See `Trainer.read_weights`."""
        self.start_from(folder / self.name)

    def resumable(self) -> Mapping[str, Resumable]:
        """Optimizers, and the discriminator where there is one."""
        if self.discriminator is None:
            return {"optimizer": self.optimizer}
        return {
            "optimizer": self.optimizer,
            "discriminator_optimizer": self.discriminator,
            "discriminator": self.discriminator.plain_module,
        }


def load_pretrained_weights(model: nn.Module, directory: Path, kind: str) -> None:
    """Takes the weights that transformers wrote into a directory. Raises UserError if they do not fit."""
    file = directory / WEIGHTS_NAME
    load_state(model, read_tensors(file)[0], f"{file}: does not fit this {kind}")
