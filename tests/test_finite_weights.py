"""NaN and infinity: refused in every kind of weights where they are read, and before they are published."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from helpers.released_layout import write_released_kmeans
from helpers.small_backbones import MERT_FEATURES, build_codec, build_mert
from helpers.small_clap import build_clap
from helpers.small_stack import Stack
from helpers.small_training import model_config, trainer_config
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from open_musiclm.checkpoints import load_weights, save_weights
from open_musiclm.checkpoints.finite import check_finite
from open_musiclm.errors import UserError
from open_musiclm.models.stages import build_stage
from open_musiclm.tokenizers.clap_directory import ClapDirectory
from open_musiclm.tokenizers.encodec_directory import load_encodec
from open_musiclm.tokenizers.mert_directory import MertDirectory
from open_musiclm.training.checkpointing import TrainingState, restore_checkpoint, save_checkpoint
from open_musiclm.training.stage_trainer import StageTools, StageTrainer
from open_musiclm.training.trainer import Resumable

BAD = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2], ids=str
)
def test_one_number_of_a_thousand(bad: float, dtype: torch.dtype) -> None:
    numbers = torch.ones(10, 100)
    check_finite({"a": numbers.to(dtype), "none": torch.empty(0), "words": torch.arange(3)}, "file")
    numbers[7, 3] = bad
    with pytest.raises(UserError, match="file: 'a' holds NaN or infinity"):
        check_finite({"fine": torch.ones(1), "a": numbers.to(dtype)}, "file")


def test_the_largest_finite_numbers_are_fine() -> None:
    check_finite({"a": torch.full((1000,), torch.finfo(torch.float32).max)}, "file")


def _spoil(path: Path, bad: float) -> None:
    with safe_open(path, "pt") as content:
        metadata = content.metadata()
    tensors = load_file(path)
    name = max((name for name in tensors if tensors[name].is_floating_point()), key=lambda name: tensors[name].numel())
    tensors[name].view(-1)[-1] = bad
    save_file(tensors, path, metadata)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", ["semantic", "coarse", "fine", "clap_rvq", "hubert_kmeans"])
def test_nan_in_own_checkpoints_is_refused(tmp_path: Path, stack: Stack, kind: str, bad: float) -> None:
    path = tmp_path / stack.weights(kind).name
    path.write_bytes(stack.weights(kind).read_bytes())
    load_weights(path, kind)
    _spoil(path, bad)
    with pytest.raises(UserError, match=rf"{path.name}: '.*' holds NaN or infinity"):
        load_weights(path, kind)


def test_nan_in_released_centroids_is_refused(tmp_path: Path) -> None:
    centroids = torch.randn(8, MERT_FEATURES)
    path = write_released_kmeans(centroids, tmp_path / "kmeans.joblib")
    content = path.read_bytes()
    place = content.index(centroids.numpy().tobytes())
    path.write_bytes(content[:place] + torch.tensor(float("nan")).numpy().tobytes() + content[place + 4 :])
    with pytest.raises(UserError, match=r"kmeans\.joblib: 'centroids' holds NaN"):
        load_weights(path, "hubert_kmeans")


BACKBONES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "clap": (build_clap, lambda folder: ClapDirectory(folder, "clap").load()),
    "mert": (build_mert, lambda folder: MertDirectory(folder, "mert").load()),
    "encodec": (build_codec, load_encodec),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", BACKBONES)
def test_nan_in_backbones_is_refused(tmp_path: Path, name: str, bad: float) -> None:
    build, load = BACKBONES[name]
    folder = build(tmp_path / name)
    load(folder)
    _spoil(folder / "model.safetensors", bad)
    with pytest.raises(UserError, match=r"model\.safetensors: '.*' holds NaN or infinity"):
        load(folder)


@pytest.mark.parametrize("name", ["clap", "mert"])
def test_nan_in_backbones_in_a_bin_file_is_refused(tmp_path: Path, name: str) -> None:
    build, load = BACKBONES[name]
    folder = build(tmp_path / name)
    weights = folder / "model.safetensors"
    _spoil(weights, float("nan"))
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(UserError, match=r"pytorch_model\.bin: '.*' holds NaN or infinity"):
        load(folder)


def test_nothing_of_the_kind_is_written(tmp_path: Path, stack: Stack) -> None:
    tensors = load_file(stack.weights("semantic"))
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    with pytest.raises(UserError, match="holds NaN or infinity"):
        save_weights(tmp_path / "semantic.safetensors", "semantic", tensors, stack.config)
    assert not any(tmp_path.iterdir())


class _TrainerWithHeads(StageTrainer):
    """Keeps a module of its own in the checkpoint, as the trainers of backbones do."""

    def resumable(self) -> Mapping[str, Resumable]:
        if not hasattr(self, "heads"):
            self.heads = nn.Linear(2, 2)
        return {**super().resumable(), "heads": self.heads}


def _trainer() -> _TrainerWithHeads:
    config = model_config()
    stage, tools = build_stage("semantic", config), StageTools(config, None, None)
    return _TrainerWithHeads(Accelerator(cpu=True), stage, tools, trainer_config())


@pytest.mark.parametrize("where", ["semantic.safetensors", "optimizer.pt", "heads.pt"])
def test_a_checkpoint_of_nan_is_not_published(tmp_path: Path, where: str) -> None:
    trainer = _trainer()
    save_checkpoint(tmp_path, trainer, TrainingState(step=1), trainer.accelerator, 2)
    weight = next(trainer.stage.parameters())
    if where == "optimizer.pt":
        weight.grad = torch.ones_like(weight)
        trainer.optimizer.update(0, [])
        (values,) = trainer.optimizer.state_dict()["state"].values()
        weight = values["exp_avg_sq"]
    elif where == "heads.pt":
        weight = trainer.heads.weight
    with torch.no_grad():
        weight.view(-1)[0] = float("nan")
    with pytest.raises(UserError) as error:
        save_checkpoint(tmp_path, trainer, TrainingState(step=2), trainer.accelerator, 2)
    assert re.search(
        rf"step_00000002: cannot write .*{where}.*NaN or infinity.*the checkpoint of step 1 is intact", str(error.value)
    )
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]


def test_nan_in_any_part_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    trainer = _trainer()
    folder = save_checkpoint(tmp_path, trainer, TrainingState(step=1), trainer.accelerator, 2)
    restore_checkpoint(folder, trainer, trainer.accelerator)
    heads = {**trainer.heads.state_dict(), "bias": torch.full((2,), float("inf"))}
    torch.save(heads, folder / "heads.pt")
    with pytest.raises(UserError, match=r"heads\.pt: 'bias' holds NaN or infinity.*resume from another checkpoint"):
        restore_checkpoint(folder, trainer, trainer.accelerator)
