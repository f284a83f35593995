"""benchmarks/layouts.py compares the layouts of any model config."""

import json
import sys
from pathlib import Path

import pytest
from helpers.paths import REPOSITORY

from open_musiclm.config import load_model_config

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from layouts import LAYOUTS, steps_per_second, variants, window_positions

CONFIGS = [*sorted((REPOSITORY / "configs/model").glob("*.json")), REPOSITORY / "demo/configs/model.json"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_has_all_layouts(path: Path, tmp_path: Path) -> None:
    given = load_model_config(path)
    found = {title: load_model_config(file) for title, file in variants(path, LAYOUTS, [None], tmp_path)}
    one_stage = [] if given.global_cfg.num_fine_quantizers == 0 else ["frames, one stage"]
    assert list(found) == ["flat", "frames", *one_stage]
    for title, config in found.items():
        assert {config.coarse_cfg.token_layout, config.fine_cfg.token_layout} == {title.split(",")[0]}
        assert config.num_acoustic_quantizers == given.num_acoustic_quantizers
        expected = ("semantic", "coarse") if title in one_stage else given.stage_names
        assert config.stage_names == expected


def test_windows_positions_and_steps_of_each_layout(tmp_path: Path) -> None:
    content = json.loads((REPOSITORY / "configs/model/musiclm_small.json").read_text())
    for section in ("coarse_cfg", "fine_cfg"):
        content[section] |= {"dim": 16, "depth": 1, "heads": 1, "use_absolute_position_embeddings": True}
        content[section] |= {"max_absolute_position_embeddings": 2000}
    path = tmp_path / "small.json"
    path.write_text(json.dumps(content))
    found = []
    for title, file in variants(path, LAYOUTS, [2.0, 4.0], tmp_path):
        config = load_model_config(file)
        for name in config.stage_names[1:]:
            found.append((title, name, window_positions(name, config), steps_per_second(name, config)))
    assert found == [
        ("flat", "coarse", 566, 225),
        ("flat", "fine", 1217, 375),
        ("flat", "coarse", 1116, 225),
        ("flat", "fine", 2417, 375),
        ("frames", "coarse", 165, 75),
        ("frames", "fine", 167, 75),
        ("frames", "coarse", 315, 75),
        ("frames", "fine", 317, 75),
        ("frames, one stage", "coarse", 170, 75),
        ("frames, one stage", "coarse", 320, 75),
    ]
