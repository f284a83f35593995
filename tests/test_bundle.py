"""Bundles: what comes along, and the way to the hub and back."""

import errno
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
from helpers.paths import REPOSITORY
from helpers.small_stack import CPU, Stack

from open_musiclm.checkpoints.bundle import bundle_kinds, open_bundle, pack, push
from open_musiclm.config import MODEL_CONFIG_NAME, ModelConfig, load_model_config
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.mert import Mert
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
    torch.save(
        {"state_dict": {"module.audio_branch.patch_embed.proj.weight": torch.ones(96, 1, 4, 4)}}, _laion(tmp_path)
    )
    content = _laion(tmp_path).read_bytes()
    folder = packed(stack, config, tmp_path / "bundle")
    moved = shutil.move(folder, tmp_path / "elsewhere")
    (tmp_path / "laion.pt").unlink()
    found = load_model_config(Path(moved) / MODEL_CONFIG_NAME)
    assert Path(found.backbone(found.clap_rvq_cfg.checkpoint_path)).read_bytes() == content
    clap = sorted(path.name for path in (Path(moved) / "clap").iterdir())
    assert clap == ["merges.txt", "vocab.json"]


def test_a_laion_file_that_is_not_there(tmp_path: Path, stack: Stack) -> None:
    with pytest.raises(UserError, match=r"laion\.pt: cannot read"):
        packed(stack, with_laion_file(stack, tmp_path), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_laion_path_that_leads_to_something_else(tmp_path: Path, stack: Stack) -> None:
    config = with_laion_file(stack, tmp_path)
    torch.save({"secret": torch.ones(2)}, _laion(tmp_path))
    with pytest.raises(UserError, match=r"laion\.pt: not the weights of LAION's CLAP"):
        packed(stack, config, tmp_path / "bundle")
    _laion(tmp_path).write_text("a secret")
    with pytest.raises(UserError, match=r"laion\.pt: not a whole file"):
        packed(stack, config, tmp_path / "bundle")


def _laion(folder: Path) -> Path:
    return folder / "laion.pt"


BUNDLE_FILES = [
    "clap/config.json", "clap/merges.txt", "clap/model.safetensors", "clap/preprocessor_config.json",
    "clap/vocab.json", "clap_rvq.safetensors", "coarse.safetensors", "encodec/config.json",
    "encodec/model.safetensors", "fine.safetensors", "generation_config.json", "hubert_kmeans.safetensors",
    "mert/config.json", "mert/model.safetensors", "model_config.json", "semantic.safetensors",
]  # fmt: skip


@pytest.fixture
def own(tmp_path: Path, stack: Stack) -> Path:
    """A copy of the stack's config and backbones, to be spoiled."""
    folder = tmp_path / "own"
    folder.mkdir()
    shutil.copyfile(stack.model_config, folder / MODEL_CONFIG_NAME)
    for name in ("clap", "mert", "encodec"):
        shutil.copytree(stack.folder / name, folder / name)
    return folder


def _named(own: Path, section: str, name: str, key: str = "model_name") -> Path:
    path = own / MODEL_CONFIG_NAME
    content = json.loads(path.read_text())
    content[section][key] = name
    path.write_text(json.dumps(content))
    return path


def test_only_the_files_that_are_read_are_copied(tmp_path: Path, stack: Stack, own: Path) -> None:
    for name in ("clap", "mert", "encodec"):
        (own / name / "private.key").write_text("secret")
        (own / name / ".git").mkdir()
        (own / name / "modeling_own.py").write_text("raise SystemExit")
    written = pack(
        own / MODEL_CONFIG_NAME, {kind: stack.weights(kind) for kind in bundle_kinds(stack.config)}, tmp_path / "bundle"
    )
    assert [path.relative_to(tmp_path / "bundle").as_posix() for path in written] == BUNDLE_FILES


@pytest.mark.parametrize("section", ["clap_rvq_cfg", "hubert_kmeans_cfg", "encodec_cfg"])
@pytest.mark.parametrize("name", ["/", "..", "./", "../", "", ".", "../own", "./.."])
def test_a_config_that_names_any_directory(
    tmp_path: Path, stack: Stack, own: Path, section: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.chdir(own)
    config = _named(own, section, name)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        packed(stack, config, own / "bundle")
    assert "\n" not in str(error.value)
    assert section in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


LOADERS: dict[tuple[str, str], Callable[[ModelConfig, torch.device], object]] = {
    ("clap_rvq_cfg", "model_name"): Clap.load,
    ("hubert_kmeans_cfg", "model_name"): Mert.load,
    ("encodec_cfg", "model_name"): Codec.load,
    ("encodec_cfg", "decoder"): Codec.load,
}


@pytest.mark.parametrize(("section", "key"), LOADERS)
@pytest.mark.parametrize("name", ["./absent", "../absent", "/absent/one", "~/absent", "own/absent/one", "absent/"])
def test_a_path_of_no_directory_is_no_hub_id(
    tmp_path: Path, stack: Stack, own: Path, section: str, key: str, name: str
) -> None:
    path = _named(own, section, name, key)
    told = rf"^{section}: {key}: cannot load .*{name.strip('./')}.*: no such directory; "
    with pytest.raises(UserError, match=told):
        packed(stack, path, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    with pytest.raises(UserError, match=told):
        LOADERS[section, key](load_model_config(path), CPU)


def test_a_folder_of_the_released_codecs_name_is_not_bundled_for_it(
    tmp_path: Path, stack: Stack, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own / "encodec").rename(own / "encodec_24khz")
    monkeypatch.chdir(own)
    folder = packed(stack, _named(own, "encodec_cfg", "encodec_24khz"), tmp_path / "bundle")
    assert load_model_config(folder / MODEL_CONFIG_NAME).encodec_cfg.model_name == "encodec_24khz"
    assert not (folder / "encodec").exists()


@pytest.mark.parametrize("linked", ["mert/config.json", "clap/model.safetensors", "encodec/model.safetensors", "mert"])
def test_links_are_not_followed(tmp_path: Path, stack: Stack, own: Path, linked: str) -> None:
    path = own / linked
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    if linked == "mert":
        _named(own, "hubert_kmeans_cfg", str(path))
    with pytest.raises(UserError, match="cannot be copied into a bundle: it or its folder is a link"):
        packed(stack, own / MODEL_CONFIG_NAME, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_that_fails_leaves_nothing(tmp_path: Path, stack: Stack) -> None:
    target = tmp_path / "results" / "bundle"
    paths = {kind: stack.weights(kind) for kind in bundle_kinds(stack.config)}
    with pytest.raises(UserError, match="fine"):
        pack(stack.model_config, paths | {"fine": stack.weights("coarse")}, target)
    full_disk = mock.patch("shutil.copyfileobj", side_effect=OSError(errno.ENOSPC, "No space left on device"))
    with full_disk, pytest.raises(UserError, match="bundle: cannot write this bundle: No space"):
        pack(stack.model_config, paths, target)
    assert not any((tmp_path / "results").iterdir())
    (tmp_path / "results" / ".unfinished_bundle").mkdir()  # of a process that was killed
    target.mkdir()  # empty
    pack(stack.model_config, paths, target)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["bundle"]
    with pytest.raises(UserError, match="already exists and is not empty"):
        pack(stack.model_config, paths, target)


def test_a_mert_with_code_of_its_own_is_not_bundled(tmp_path: Path, stack: Stack, own: Path) -> None:
    path = own / "mert" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"deepnorm": True}))
    with pytest.raises(UserError, match="deepnorm, which needs Python code, and a bundle carries none"):
        packed(stack, own / MODEL_CONFIG_NAME, tmp_path / "bundle")


def test_to_the_hub_and_back(tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
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
    output = capsys.readouterr().out
    assert all(f"bundle/{name}, " in output[: output.index("pushing these files")] for name in BUNDLE_FILES)
    shutil.rmtree(tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    with mock.patch("huggingface_hub.snapshot_download", side_effect=lambda name: str(hub / name)):
        folder = open_bundle("someone/music")
    config = load_model_config(folder / MODEL_CONFIG_NAME)
    MusicTokenizer.load(config, folder / "clap_rvq.safetensors", folder / "hubert_kmeans.safetensors", CPU)


def test_pushing_without_a_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    with pytest.raises(UserError, match=r"^--push_to_hub someone/music: cannot push .*bundle: .*onnect") as error:
        push(tmp_path / "bundle", "someone/music")
    assert "\n" not in str(error.value)


def _argument(kind: str) -> str:
    return {"clap_rvq": "rvq", "hubert_kmeans": "kmeans"}.get(kind, kind)
