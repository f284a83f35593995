"""The recorded cases: all of them from ../shared/golden where it is, the small subset in tests/golden everywhere."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from helpers.paths import REPOSITORY
from open_musiclm.config import (
    ClapRvqConfig,
    CoarseConfig,
    EncodecConfig,
    FineConfig,
    GlobalConfig,
    HubertKmeansConfig,
    ModelConfig,
    SemanticConfig,
    TransformerConfig,
)

SHARED = REPOSITORY.parent / "shared" / "golden"
OWN = REPOSITORY / "tests" / "golden"


def golden_file(name: str) -> Path:
    """A recorded file; skips the test where this clone does not have it."""
    for folder in (SHARED, OWN):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"the recorded case {name} is not in this clone (only a subset comes with it)")


def golden_settings(case: str) -> dict:
    return json.loads(golden_file(f"{case}.json").read_text())


def golden_tensors(case: str) -> dict[str, Tensor]:
    return load_file(golden_file(f"{case}.expected.safetensors"))


def golden_config(settings: dict) -> ModelConfig:
    """The model config of a recorded stage."""
    transformer = {key: settings[key] for key in TransformerConfig.model_fields if key in settings}
    return ModelConfig(
        global_cfg=GlobalConfig(
            num_coarse_quantizers=settings["num_coarse_quantizers"],
            num_fine_quantizers=settings["num_fine_quantizers"],
        ),
        clap_rvq_cfg=ClapRvqConfig(
            codebook_size=settings["clap_codebook_size"], rq_num_quantizers=settings["num_clap_quantizers"]
        ),
        hubert_kmeans_cfg=HubertKmeansConfig(codebook_size=settings["semantic_codebook_size"]),
        encodec_cfg=EncodecConfig(codebook_size=settings["acoustic_codebook_size"]),
        semantic_cfg=SemanticConfig(**transformer),
        coarse_cfg=CoarseConfig(**transformer),
        fine_cfg=FineConfig(**transformer),
    )


def closest(left: Tensor, right: Tensor) -> float:
    """The largest absolute difference."""
    assert left.shape == right.shape
    return float((left - right).abs().max()) if left.numel() else 0.0


CPU = torch.device("cpu")
