"""Configs: shipped configs hold the documented values, and every mistake is named with its file, section and key."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from open_musiclm.config import (
    ClapRvqTrainerConfig,
    ModelConfig,
    StageTrainerConfig,
    load_model_config,
    load_training_config,
    model_config_from_json,
    require,
)
from open_musiclm.errors import UserError

CONFIGS = REPOSITORY / "configs"
SMALL = json.loads((CONFIGS / "model/musiclm_small.json").read_text())
TRAINING = json.loads((CONFIGS / "training/train_musiclm_fma.json").read_text())


def changed(content: dict, section: str, **keys: object) -> dict:
    """A copy of a config with keys of a section set."""
    result = copy.deepcopy(content)
    result[section].update(keys)
    return result


def written(folder: Path, content: object) -> Path:
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "depth", "heads", "windows", "fusion"),
    [
        ("musiclm_small", 6, 8, (10, 4, 2, 10), False),
        ("musiclm_large_small_context", 24, 16, (10, 4, 2, 10), False),
        ("musiclm_large", 24, 16, (30, 10, 3, 30), True),
    ],
)
def test_shipped_model_configs(name: str, depth: int, heads: int, windows: tuple, fusion: bool) -> None:
    config = load_model_config(CONFIGS / f"model/{name}.json")
    for stage in (config.semantic_cfg, config.coarse_cfg, config.fine_cfg):
        assert (stage.dim, stage.depth, stage.heads) == (1024, depth, heads)
    lengths = config.global_cfg
    assert windows == (
        lengths.semantic_audio_length_seconds,
        lengths.coarse_audio_length_seconds,
        lengths.fine_audio_length_seconds,
        lengths.clap_audio_length_seconds,
    )
    assert config.clap_rvq_cfg.enable_fusion is fusion
    assert config.num_acoustic_quantizers == 8


@pytest.mark.parametrize(("name", "preprocessed"), [("train_musiclm_fma", False), ("train_fma_preprocess", True)])
def test_shipped_training_configs(name: str, preprocessed: bool) -> None:
    config = load_training_config(CONFIGS / f"training/{name}.json")
    rvq = require(config, "clap_rvq_trainer_cfg", ClapRvqTrainerConfig)
    assert (rvq.num_train_steps, rvq.accumulate_batches, rvq.batch_size) == (1000, 32, 64)
    for stage, batch, warm_up in (("semantic", 4, 3000), ("coarse", 2, 6000), ("fine", 2, 0)):
        section = require(config, f"{stage}_trainer_cfg", StageTrainerConfig)
        assert (section.batch_size, section.lr_warmup, section.grad_accum_every) == (batch, warm_up, 8)
        assert section.use_preprocessed_data is preprocessed


def with_unknown_key(content: dict) -> dict:
    return changed(content, "semantic_cfg", dpeth=3)


def without_section(content: dict) -> dict:
    return {name: section for name, section in content.items() if name != "fine_cfg"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (with_unknown_key(SMALL), r"semantic_cfg: dpeth: unknown key; known here: .*depth"),
        ({**SMALL, "semantics_cfg": {}}, r"semantics_cfg: unknown key; known here: .*semantic_cfg"),
        (without_section(SMALL), r"fine_cfg: missing"),
        (changed(SMALL, "coarse_cfg", depth="six"), r"coarse_cfg: depth: .*integer, found 'six'"),
        (changed(SMALL, "coarse_cfg", depth=6.5), r"coarse_cfg: depth: .*integer"),
        (changed(SMALL, "coarse_cfg", use_conv_ff=1), r"coarse_cfg: use_conv_ff: .*boolean, found 1"),
        (changed(SMALL, "fine_cfg", heads=0), r"fine_cfg: heads: .*greater than 0, found 0"),
        (changed(SMALL, "fine_cfg", ff_dropout=1.0), r"fine_cfg: ff_dropout: .*less than 1"),
        (
            changed(SMALL, "fine_cfg", relative_position_bias_type="rope"),
            r"fine_cfg: relative_position_bias_type: .*t5",
        ),
        (changed(SMALL, "global_cfg", coarse_audio_length_seconds=1), r"global_cfg: .*coarse.* >= .*fine"),
        (changed(SMALL, "global_cfg", fine_audio_length_seconds=1.99), r"global_cfg: a window of 1.99 s is not .*0.04"),
        (changed(SMALL, "hubert_kmeans_cfg", output_hz=75), r"hubert_kmeans_cfg: target_sample_hz 16000 must be"),
        (changed(SMALL, "encodec_cfg", output_hz=70), r"encodec_cfg: sample_hz 24000 must be a multiple"),
        ([], r"dictionary|object"),
        ("{", r"not valid JSON"),
        ("[" * 100_000, r"not valid JSON: nested too deeply"),
    ],
)
def test_wrong_model_config_names_file_section_and_key(tmp_path: Path, content: object, told: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=told) as error:
        load_model_config(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            changed(TRAINING, "semantic_trainer_cfg", stage="coarse", cross_entropy_loss_weights=None),
            r"semantic_trainer_cfg: stage: expected 'semantic'",
        ),
        (
            changed(TRAINING, "coarse_trainer_cfg", learning_rate=1),
            r"coarse_trainer_cfg: learning_rate: unknown key.* lr,",
        ),
        (changed(TRAINING, "fine_trainer_cfg", valid_frac=1.0), r"fine_trainer_cfg: valid_frac: .*less than 1"),
        (
            changed(TRAINING, "fine_trainer_cfg", cross_entropy_loss_weights=[0, 1]),
            r"fine_trainer_cfg: cross_entropy_loss_weights: expected 3 numbers, found 2",
        ),
        (changed(TRAINING, "clap_rvq_trainer_cfg", batch_size=-1), r"clap_rvq_trainer_cfg: batch_size: .*found -1"),
    ],
)
def test_wrong_training_config_names_section_and_key(tmp_path: Path, content: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_training_config(written(tmp_path, content))


def test_missing_file_and_missing_section(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "nowhere.json"))):
        load_model_config(tmp_path / "nowhere.json")
    path = written(tmp_path, {"clap_rvq_trainer_cfg": TRAINING["clap_rvq_trainer_cfg"], "fine_trainer_cfg": {}})
    config = load_training_config(path)
    for section in ("semantic_trainer_cfg", "fine_trainer_cfg"):
        with pytest.raises(UserError, match=f"{section} is missing or empty"):
            require(config, section, StageTrainerConfig)


def test_backbone_beside_the_config_or_by_name(tmp_path: Path) -> None:
    config = load_model_config(written(tmp_path, SMALL))
    assert config.backbone("./mert") == str(tmp_path / "mert")
    assert config.backbone("m-a-p/MERT-v0") == "m-a-p/MERT-v0"


def test_new_keys_may_be_left_out(tmp_path: Path) -> None:
    """A config of the earlier implementation, without this one's keys, keeps its meaning."""
    config = load_model_config(written(tmp_path, SMALL))
    assert (config.encodec_cfg.model_name, config.clap_rvq_cfg.sample_hz) == ("encodec_24khz", 48000)
    assert load_training_config(written(tmp_path, TRAINING)).semantic_trainer_cfg.precision == "auto"


@given(
    st.fixed_dictionaries(
        {
            "dim": st.integers(1, 4096),
            "depth": st.integers(1, 64),
            "ff_dropout": st.floats(0, 1, exclude_max=True),
            "use_conv_ff": st.booleans(),
            "relative_position_bias_type": st.sampled_from(["continuous", "t5", "none"]),
        }
    )
)
def test_config_survives_the_checkpoint(section: dict[str, Any]) -> None:
    config = ModelConfig.model_validate(changed(SMALL, "semantic_cfg", **section))
    assert model_config_from_json(config.model_dump_json(), "a checkpoint") == config
