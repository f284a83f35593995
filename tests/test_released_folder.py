"""A folder laid out as the released one, at toy size: the documented commands run on it unchanged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from helpers import documentation, forks
from helpers.paths import REPOSITORY
from helpers.released_layout import released_rvq, released_stage, write_released_kmeans
from helpers.small_stack import MODEL, Stack

from open_musiclm.checkpoints import load_weights
from open_musiclm.config import STAGE_NAMES

NAMES = {
    "semantic": "semantic.transformer.14000.pt",
    "coarse": "coarse.transformer.18000.pt",
    "fine": "fine.transformer.24000.pt",
    "clap_rvq": "clap.rvq.950_no_fusion.pt",
    "hubert_kmeans": "kmeans_10s_no_fusion.joblib",
}
CONFIG = "musiclm_large_small_context.json"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> Path:
    """A working directory with scripts/ and checkpoints/."""
    folder = tmp_path_factory.mktemp("place")
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    (folder / "scripts").symlink_to(REPOSITORY / "scripts")
    tokenizer = stack.tokenizer()
    for name, stage in stack.stages().items():
        torch.save(released_stage(stage), checkpoints / NAMES[name])
    torch.save(released_rvq(tokenizer.quantizer), checkpoints / NAMES["clap_rvq"])
    write_released_kmeans(tokenizer.semantic.centroids, checkpoints / NAMES["hubert_kmeans"])
    config = json.loads(json.dumps(MODEL))
    for section, backbone in (("clap_rvq_cfg", "clap"), ("hubert_kmeans_cfg", "mert"), ("encodec_cfg", "encodec")):
        config[section]["model_name"] = str(stack.folder / backbone)
    (checkpoints / CONFIG).write_text(json.dumps(config))
    return folder


def run_fork(command: list[str], place: Path) -> None:
    ended = forks.run(command, cwd=place)
    assert ended.returncode == 0, ended.stderr


def run(command: list[str], place: Path) -> str:
    """In a process that is started anew."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(
        [sys.executable, *command], cwd=place, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_the_documented_command_generates(place: Path) -> None:
    output = run(documentation.command("infer_top_match", "checkpoints/semantic"), place)
    (wave,) = (place / "results/infer_top_match").glob("*.wav")
    assert wave.name in output
    assert soundfile.info(wave).frames == 4 * 24000
    assert json.loads(wave.with_suffix(".json").read_text())["paths"]["rvq_path"] == f"checkpoints/{NAMES['clap_rvq']}"


def test_the_documented_command_converts(place: Path) -> None:
    run_fork(documentation.command("convert_checkpoint"), place)
    converted = load_weights(place / "checkpoints/semantic.transformer.14000.safetensors", "semantic")
    released = load_weights(place / "checkpoints" / NAMES["semantic"], "semantic")
    assert converted.model_config is not None
    assert released.model_config is None
    assert converted.tensors.keys() == released.tensors.keys()
    assert all(torch.equal(converted.tensors[name], tensor) for name, tensor in released.tensors.items())


@pytest.mark.slow
def test_released_parts_make_the_same_music_as_a_bundle_of_them(place: Path) -> None:
    paths = [f"--{name}_path checkpoints/{NAMES[name]}" for name in STAGE_NAMES]
    paths += [f"--rvq_path checkpoints/{NAMES['clap_rvq']}", f"--kmeans_path checkpoints/{NAMES['hubert_kmeans']}"]
    parts = [word for path in [*paths, f"--model_config checkpoints/{CONFIG}"] for word in path.split()]
    run_fork(["scripts/bundle.py", "--results_folder", "bundle", *parts], place)
    request = ["scripts/infer_top_match.py", "a tune", "--num_samples", "1", "--duration", "0.5"]
    run_fork([*request, *parts, "--results_folder", "apart"], place)
    run_fork([*request, "--checkpoint_dir", "bundle", "--results_folder", "bundled"], place)
    (apart,), (bundled,) = (list((place / name).glob("*.wav")) for name in ("apart", "bundled"))
    assert apart.read_bytes() == bundled.read_bytes()
