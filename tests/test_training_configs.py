"""Training configs: every field is documented; keys of earlier files are accepted under their new names."""

import json

import pytest
from pydantic import BaseModel

from open_musiclm.config import CoarseConfig, TrainingConfig, model_config_from_json
from open_musiclm.config.backbones import (
    ClapTrainingConfig,
    EncodecTrainerConfig,
    MertTrainerConfig,
    MertTrainingConfig,
)
from open_musiclm.errors import UserError


def sections_of(kind: type[BaseModel]) -> list[type[BaseModel]]:
    """A section and all that are nested in it."""
    found = [kind]
    for field in kind.model_fields.values():
        for option in getattr(field.annotation, "__args__", (field.annotation,)):
            if isinstance(option, type) and issubclass(option, BaseModel):
                found += sections_of(option)
    return found


@pytest.mark.parametrize("kind", [TrainingConfig, ClapTrainingConfig, MertTrainingConfig, EncodecTrainerConfig])
def test_every_field_has_a_description(kind: type[BaseModel]) -> None:
    for section in sections_of(kind):
        missing = [name for name, field in section.model_fields.items() if not field.description]
        assert not missing, section.__name__


def test_the_old_name_of_history_corruption_is_accepted() -> None:
    assert CoarseConfig.model_validate({"strayed_history": 0.5}).history_corruption == 0.5
    assert "history_corruption" in CoarseConfig().model_dump()
    sections = ("global_cfg", "clap_rvq_cfg", "hubert_kmeans_cfg", "encodec_cfg", "semantic_cfg", "coarse_cfg")
    content: dict[str, dict] = {name: {} for name in (*sections, "fine_cfg")}
    content["semantic_cfg"] = {"strayed_history": 0.5, "history_corruption": 0.5}
    with pytest.raises(UserError, match="semantic_cfg: strayed_history: unknown key"):
        model_config_from_json(json.dumps(content), "model.json")


def test_the_old_name_of_the_unmasked_weight_is_accepted() -> None:
    content = {"folder": "sounds", "num_train_steps": 1, "batch_size": 1, "lr": 1e-3, "heard_weight": 0.5}
    assert MertTrainerConfig.model_validate(content).unmasked_weight == 0.5
    with pytest.raises(ValueError, match="heard_weight"):
        MertTrainerConfig.model_validate({**content, "unmasked_weight": 0.5})
