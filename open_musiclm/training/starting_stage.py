"""The stage at the start of a run: new, from other weights, or frozen with an adapter."""

from pathlib import Path

import torch

from open_musiclm.checkpoints import find_weights
from open_musiclm.checkpoints.adapters import Adapter, adapter_name, load_adapter
from open_musiclm.checkpoints.fingerprints import fingerprint_of
from open_musiclm.config import ModelConfig, StageName, StageTrainerConfig, TrainingConfig
from open_musiclm.config.lora import LoraConfig
from open_musiclm.errors import UserError
from open_musiclm.models.lora import add_adapter
from open_musiclm.models.stages import Stage, build_stage, load_stage_to_adapt, load_stage_to_train_on
from open_musiclm.training.stage_files import AdapterFile, StageFile, WholeStageFile


def starting_stage(
    config: StageTrainerConfig,
    model_config: ModelConfig,
    fine_tune_from: Path | None,
    checkpoint: Path | None,
    device: torch.device,
) -> tuple[Stage, StageFile]:
    """The stage of `config`, and what its checkpoints hold; the weights of `checkpoint` are read later, by the loop.

    An adapter of a resumed run keeps its base weights; `fine_tune_from` gives their new path if they have moved. Raises
    UserError.
    """
    name = config.stage
    if config.lora is None:
        if checkpoint is not None and (checkpoint / adapter_name(name)).exists():
            raise UserError(f"{checkpoint}: holds an adapter; resume with --lora_rank, or lora in {name}_trainer_cfg")
        if fine_tune_from is None:
            return build_stage(name, model_config), WholeStageFile(model_config)
        return load_stage_to_train_on(fine_tune_from, name, model_config, device), WholeStageFile(model_config)
    before = None if checkpoint is None else _adapter_in(checkpoint, name)
    base = _base(config, fine_tune_from, before)
    stage = load_stage_to_adapt(base, name, model_config, device)
    fingerprint = fingerprint_of(stage.layout.state_dict())
    if before is not None:
        before.check_base(name, fingerprint, base)
    add_adapter(stage, config.lora)
    return stage, AdapterFile(config.lora, base, fingerprint)


def with_lora_rank(training_config: TrainingConfig, name: StageName, rank: int | None) -> TrainingConfig:
    """The config with this rank in the `lora` of the stage's section, which is added where it is missing."""
    section: StageTrainerConfig | None = getattr(training_config, f"{name}_trainer_cfg")
    if rank is None or section is None:
        return training_config
    lora = LoraConfig(rank=rank) if section.lora is None else section.lora.model_copy(update={"rank": rank})
    changed = section.model_copy(update={"lora": lora})
    return training_config.model_copy(update={f"{name}_trainer_cfg": changed})


def _adapter_in(checkpoint: Path, name: StageName) -> Adapter:
    file = checkpoint / adapter_name(name)
    if not file.exists():
        raise UserError(f"{checkpoint}: holds no {file.name}: that run trained whole weights; resume without lora")
    return load_adapter(file)


def _base(config: StageTrainerConfig, fine_tune_from: Path | None, before: Adapter | None) -> Path:
    """The file of the weights that are adapted, by its full path. Raises UserError."""
    if fine_tune_from is not None:
        return find_weights(fine_tune_from, config.stage).resolve()
    if before is None:
        raise UserError(
            f"{config.stage}_trainer_cfg: lora: an adapter needs weights to adapt; name them with --fine_tune_from"
        )
    if not Path(before.base).is_file():
        raise UserError(
            f"{before.path}: the weights that it adapts are no longer at {before.base}; give them with "
            "--fine_tune_from (and --lora_rank) beside --continue_from_dir"
        )
    return Path(before.base)
