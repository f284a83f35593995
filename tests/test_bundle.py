"""Bundles: what comes along, and the way to the hub and back."""

import json
import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest
from helpers.paths import REPOSITORY
from helpers.small_stack import CPU, Stack

from open_musiclm.checkpoints.bundle import bundle_kinds, open_bundle, pack
from open_musiclm.config import MODEL_CONFIG_NAME, load_model_config
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer

sys.path.insert(0, str(REPOSITORY / "scripts"))
import bundle as bundle_script


def packed(stack: Stack, config: Path, folder: Path) -> Path:
    pack(config, {kind: stack.weights(kind) for kind in bundle_kinds(stack.config)}, folder)
    return folder


def with_laion_file(stack: Stack, folder: Path) -> Path:
    """The stack's config in `folder`, but with a CLAP from the LAION file beside it."""
    content = json.loads(stack.model_config.read_text())
    content["clap_rvq_cfg"]["checkpoint_path"] = "./laion.pt"
    for section, name in (("clap_rvq_cfg", "clap"), ("hubert_kmeans_cfg", "mert"), ("encodec_cfg", "encodec")):
        content[section]["model_name"] = str(stack.folder / name)
    path = folder / "model_config.json"
    path.write_text(json.dumps(content))
    return path


def test_a_laion_file_comes_along(tmp_path: Path, stack: Stack) -> None:
    config = with_laion_file(stack, tmp_path)
    (tmp_path / "laion.pt").write_bytes(b"weights")
    folder = packed(stack, config, tmp_path / "bundle")
    moved = shutil.move(folder, tmp_path / "elsewhere")
    (tmp_path / "laion.pt").unlink()
    found = load_model_config(Path(moved) / MODEL_CONFIG_NAME)
    assert Path(found.backbone(found.clap_rvq_cfg.checkpoint_path)).read_bytes() == b"weights"


def test_a_laion_file_that_is_not_there(tmp_path: Path, stack: Stack) -> None:
    with pytest.raises(UserError, match=r"checkpoint_path: no such file: .*laion\.pt"):
        packed(stack, with_laion_file(stack, tmp_path), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_to_the_hub_and_back(tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is a folder here: what the script uploads is what `--checkpoint_dir ID` reads."""
    hub = tmp_path / "hub"
    parts = [
        word for kind in bundle_kinds(stack.config) for word in (f"--{_argument(kind)}_path", str(stack.weights(kind)))
    ]
    arguments = ["--results_folder", str(tmp_path / "bundle"), "--model_config", str(stack.model_config), *parts]
    parsed = bundle_script.arguments().parse_args([*arguments, "--push_to_hub", "someone/music"])
    with (
        mock.patch("huggingface_hub.HfApi.create_repo") as create,
        mock.patch(
            "huggingface_hub.HfApi.upload_folder",
            side_effect=lambda repo_id, folder_path: shutil.copytree(folder_path, hub / repo_id),
        ),
    ):
        bundle_script.main(parsed)
    create.assert_called_once_with("someone/music", exist_ok=True)
    shutil.rmtree(tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    with mock.patch("huggingface_hub.snapshot_download", side_effect=lambda name: str(hub / name)):
        folder = open_bundle("someone/music")
    config = load_model_config(folder / MODEL_CONFIG_NAME)
    MusicTokenizer.load(config, folder / "clap_rvq.safetensors", folder / "hubert_kmeans.safetensors", CPU)


def _argument(kind: str) -> str:
    return {"clap_rvq": "rvq", "hubert_kmeans": "kmeans"}.get(kind, kind)
