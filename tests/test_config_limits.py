"""Config values without sense: refused when the file is read, with the key, the limit and the reason."""

import copy
import json
from pathlib import Path

import pytest
import torch
from helpers.paths import DEMO, REPOSITORY
from pydantic import ValidationError

from open_musiclm.config import (
    GenerationConfig,
    ModelConfig,
    load_generation_config,
    load_model_config,
    load_training_config,
)
from open_musiclm.config.backbones import ClapTrainingConfig, EncodecTrainerConfig, MertTrainingConfig
from open_musiclm.config.json_files import load_section
from open_musiclm.config.model_checks import check_absolute_positions
from open_musiclm.errors import UserError
from open_musiclm.models.stages import build_stage
from open_musiclm.tokens import stage_streams
from open_musiclm.training.backbones.train import EncodecTrainingConfig

READERS = {
    "model": (load_model_config, REPOSITORY / "configs/model/musiclm_small.json"),
    "training": (load_training_config, REPOSITORY / "configs/training/train_fma_preprocess.json"),
    "encodec": (
        lambda path: load_section(path, EncodecTrainingConfig),
        REPOSITORY / "configs/backbones/train_encodec.json",
    ),
    "clap": (lambda path: load_section(path, ClapTrainingConfig), DEMO / "configs/train_clap.json"),
    "mert": (lambda path: load_section(path, MertTrainingConfig), DEMO / "configs/train_mert.json"),
}
ABSOLUTE = {"use_absolute_position_embeddings": True}
CASES = [
    ("model", "global_cfg", {"clap_audio_length_seconds": 1e-9}, "shorter than one window of CLAP's spectrogram"),
    ("model", "global_cfg", {"clap_audio_length_seconds": 0.02}, "use at least 0.021 s"),
    ("model", "global_cfg", {"clap_audio_length_seconds": 1e9}, "above 3600: a window is"),
    ("model", "global_cfg", {"semantic_audio_length_seconds": 1e308}, "less than or equal to 1000000000"),
    ("model", "global_cfg", {"fine_audio_length_seconds": 1e-12}, "a window of 1e-12 s is not a whole number"),
    (
        "model",
        "global_cfg",
        {"semantic_audio_length_seconds": 3600, "coarse_audio_length_seconds": 3600},
        "semantic stage; at most 131072 are possible|179999 positions",
    ),
    ("model", "global_cfg", {"num_coarse_quantizers": 10**6}, "above 256: every quantizer"),
    ("model", "encodec_cfg", {"codebook_size": 2**40}, "above 1048576: every code"),
    ("model", "encodec_cfg", {"codebook_size": 2**20}, "codebook_size is 8388608 codes; at most 4194304"),
    ("model", "clap_rvq_cfg", {"codebook_size": 2**20}, "clap_rvq_cfg: rq_num_quantizers times codebook_size"),
    ("model", "hubert_kmeans_cfg", {"target_sample_hz": 10**12}, "target_sample_hz: 1000000000000 is above"),
    ("model", "semantic_cfg", {"dim": 10**9}, "above 65536: weights grow"),
    ("model", "semantic_cfg", {"dim": 65536, "depth": 512}, "weights; at most 20 billion are built"),
    ("model", "coarse_cfg", {"depth": 10**60}, "above 1024"),
    ("model", "semantic_cfg", ABSOLUTE, "semantic_cfg: max_absolute_position_embeddings: 262 is below 499"),
    ("model", "coarse_cfg", ABSOLUTE, "coarse_cfg: max_absolute_position_embeddings: 712 is below 900"),
    ("training", "fine_trainer_cfg", {"cross_entropy_loss_weights": [0, 0, 0.0]}, "all are 0"),
    ("training", "fine_trainer_cfg", {"num_workers": 10**6}, "num_workers: 1000000 is above 256: each is a process"),
    ("training", "fine_trainer_cfg", {"seed": 2**32}, "seed: 4294967296 is above .*: seeds have 32 bits"),
    ("training", "fine_trainer_cfg", {"seed": -1}, "seed: .*greater than or equal to 0"),
    ("training", "fine_trainer_cfg", {"batch_size": 10**9}, "above 65536: a batch"),
    ("training", "fine_trainer_cfg", {"num_train_steps": 10**30}, "less than or equal to 2147483647"),
    ("training", "fine_trainer_cfg", {"lr": 1e300}, "less than or equal to 1000000000"),
    ("training", "data_preprocessor_cfg", {"max_audio_length_seconds": 1e6}, "above 86400: a crop"),
    ("training", "hubert_kmeans_trainer_cfg", {"feature_extraction_batch_size": 10**7}, "above 65536"),
    ("encodec", "trainer", {"crop_seconds": 1e-9}, "shorter than a frame"),
    ("encodec", "trainer", {"crop_seconds": 0.04, "spectrogram_windows": [64, 4096]}, "shorter spectrogram_windows"),
    ("encodec", "trainer", {"crop_seconds": 0.05, "adversarial_weight": 1.0}, "use at least 0.0853 s"),
    ("encodec", "trainer", {"spectrogram_windows": []}, "at least 1 item"),
    ("encodec", "trainer", {"spectrogram_windows": [1]}, "greater than or equal to 32"),
    ("encodec", "trainer", {"spectrogram_windows": [2**30]}, "above 65536"),
    (
        "encodec",
        "trainer",
        {"time_weight": 0, "spectrogram_weight": 0, "adversarial_weight": 0, "feature_matching_weight": 0},
        "all are 0",
    ),
    ("clap", "architecture", {"text_heads": 5}, "text_heads: 5 does not divide text_dim"),
    ("clap", "architecture", {"audio_heads": [4]}, "audio_heads: expected 2 numbers"),
    ("clap", "architecture", {"audio_heads": [4, 7]}, "audio_heads: 7 does not divide audio_dim of stage 1"),
    ("clap", "architecture", {"audio_depths": [1] * 9, "audio_heads": [1] * 9}, "audio_depths: 9 stages"),
    ("clap", "architecture", {"audio_depths": [], "audio_heads": []}, "at least 1 item"),
    ("clap", "architecture", {"vocabulary_size": 260}, "vocabulary_size: 260 is below 261"),
    ("mert", "architecture", {"heads": 7}, "heads: 7 does not divide feature_dim"),
    ("mert", "architecture", {"position_groups": 7}, "position_groups: 7 does not divide feature_dim"),
    ("mert", "trainer", {"crop_seconds": 0.02}, "shorter than a frame of MERT"),
]


@pytest.mark.parametrize(("kind", "section", "keys", "told"), CASES)
def test_values_without_sense_are_refused(tmp_path: Path, kind: str, section: str, keys: dict, told: str) -> None:
    read, original = READERS[kind]
    content = copy.deepcopy(json.loads(original.read_text()))
    content[section].update(keys)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=told) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("read_and_path", READERS.values(), ids=READERS)
def test_what_is_shipped_is_within_the_limits(read_and_path: tuple) -> None:
    read, path = read_and_path
    read(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"duration": 1e-9},
        {"duration": 1e9},
        {"duration": 1e308},
        {"num_samples": 10**9, "num_top_matches": 1},
        {"semantic_temperature": 1e-45},
        {"fine_temperature": 1e40},
        {"cfg_scale": 1e40},
        {"cfg_scale": [1.0, 1.0, 1e40]},
        {"seed": 10**30},
        {"seed": 10**5000},
        {"max_batch_size": 10**9},
        {"top_k": 10**30},
    ],
)
def test_generation_without_sense_is_refused(tmp_path: Path, fields: dict) -> None:
    with pytest.raises((ValidationError, UserError)):
        GenerationConfig(**fields)
    with pytest.raises(UserError, match=next(iter(fields))) as refused:
        GenerationConfig().updated(fields)
    assert "\n" not in str(refused.value)
    if fields.get("seed") == 10**5000:
        return  # json.dumps cannot write it
    (tmp_path / "generation_config.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match=next(iter(fields))):
        load_generation_config(tmp_path)


def test_what_generation_could_always_do_it_can() -> None:
    for fields in (
        {"duration": 3 * 3600},
        {"semantic_temperature": 0},
        {"seed": -5},
        {"seed": 2**62},
        {"cfg_scale": 4},
    ):
        GenerationConfig.model_validate(fields)


def test_guidance_is_a_tuple_or_a_list() -> None:
    changed = GenerationConfig().updated({"cfg_scale": (4.0, 2.5, 1.0)})
    assert changed == GenerationConfig(cfg_scale=[4.0, 2.5, 1.0])
    with pytest.raises(UserError, match="cfg_scale"):
        changed.updated({"cfg_scale": (4.0, 2.5)})


def test_tables_of_positions_that_are_long_enough_are_enough() -> None:
    """As many as the longest sequence has tokens: a conditioning sequence with its end id, the last one without."""
    content = json.loads(READERS["model"][1].read_text())
    small = {"dim": 8, "depth": 1, "heads": 1, **ABSOLUTE}
    needed = {"semantic": 499, "coarse": 900, "fine": 750}
    for stage, count in needed.items():
        content[f"{stage}_cfg"] = {**small, "max_absolute_position_embeddings": count}
    config = ModelConfig.model_validate(content)
    for stage in needed:
        ids = [
            torch.zeros(1, stream.frames(config.window_seconds(stage)), stream.quantizers, dtype=torch.long)
            for stream in stage_streams(stage, config)
        ]
        build_stage(stage, config).layout.embed(ids)
        content[f"{stage}_cfg"]["max_absolute_position_embeddings"] -= 1
        with pytest.raises(UserError, match=f"below {needed[stage]}"):
            check_absolute_positions(ModelConfig.model_validate(content))
        content[f"{stage}_cfg"]["max_absolute_position_embeddings"] += 1


def test_a_loss_of_weight_zero_is_left_out() -> None:
    assert EncodecTrainerConfig(folder="a", num_train_steps=1, batch_size=1, lr=1e-3, time_weight=0).time_weight == 0
