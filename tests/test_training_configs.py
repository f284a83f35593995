"""Training configs: every field is documented; keys of earlier files are accepted under their new names."""

import pytest
from pydantic import BaseModel

from open_musiclm.config import CoarseConfig, TrainingConfig
from open_musiclm.config.backbones import (
    ClapTrainingConfig,
    EncodecTrainerConfig,
    MertTrainerConfig,
    MertTrainingConfig,
)


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


@pytest.mark.parametrize("key", ["history_corruption", "strayed_history"])
def test_what_scheduled_sampling_replaced_is_accepted(key: str) -> None:
    assert CoarseConfig.model_validate({key: 0.5}) == CoarseConfig()


def test_the_old_name_of_the_unmasked_weight_is_accepted() -> None:
    content = {"folder": "sounds", "num_train_steps": 1, "batch_size": 1, "lr": 1e-3, "heard_weight": 0.5}
    assert MertTrainerConfig.model_validate(content).unmasked_weight == 0.5
    with pytest.raises(ValueError, match="heard_weight"):
        MertTrainerConfig.model_validate({**content, "unmasked_weight": 0.5})
