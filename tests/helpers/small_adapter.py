"""A LoRA adapter with random weights."""

from pathlib import Path

import torch

from helpers.small_stack import CPU, Stack
from open_musiclm.checkpoints.adapters import Adapter, adapter_name, save_adapter
from open_musiclm.checkpoints.fingerprints import fingerprint_of
from open_musiclm.config import StageName
from open_musiclm.config.lora import LoraConfig
from open_musiclm.models.lora import adapter_tensors, add_adapter
from open_musiclm.models.stages import Stage, load_stage_to_adapt


def random_adapter(stack: Stack, name: StageName, path: Path, **lora: object) -> tuple[Stage, Adapter]:
    """A stage with an adapter that changes something, and the same as a file."""
    stage = load_stage_to_adapt(stack.weights(name), name, stack.config, CPU)
    fingerprint = fingerprint_of(stage.layout.state_dict())
    config = LoraConfig.model_validate({"rank": 4, **lora})
    add_adapter(stage, config)
    torch.manual_seed(3)
    for tensor in adapter_tensors(stage.layout.state_dict()).values():
        torch.nn.init.normal_(tensor, std=0.3)
    tensors = adapter_tensors(stage.layout.state_dict())
    adapter = Adapter(path / adapter_name(name), name, config, fingerprint, "base", tensors)
    save_adapter(adapter)
    return stage.eval(), adapter
