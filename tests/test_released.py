"""Released checkpoints: read under our names, and never trusted."""

import contextlib
import os
import pickle
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from helpers.golden_cases import CPU, golden_config, golden_file, golden_settings, golden_tensors
from helpers.released_layout import released_kmeans, released_rvq, released_stage, write_released_kmeans
from helpers.small_backbones import model_config
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from open_musiclm.checkpoints.legacy import stages as released
from open_musiclm.config import ClapRvqConfig, CoarseConfig, FineConfig, ModelConfig, SemanticConfig
from open_musiclm.errors import UserError
from open_musiclm.models.stages import build_stage, load_stage
from open_musiclm.tokenizers.rvq import ClapQuantizer

GOLDEN_STAGES = ["semantic", "semantic_prefix", "semantic_t5", "coarse", "coarse_plain_ff_absolute", "fine"]
CENTROIDS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def _small_config(**keys: object) -> ModelConfig:
    transformer = {"dim": 16, "depth": 2, "heads": 2} | keys
    sections = [kind(**transformer) for kind in (SemanticConfig, CoarseConfig, FineConfig)]
    return model_config(ClapRvqConfig(rq_num_quantizers=2, codebook_size=8), *sections)


@pytest.mark.parametrize("case", GOLDEN_STAGES)
def test_the_toy_layout_is_the_recorded_one(case: str) -> None:
    """What these tests write themselves is what the earlier implementation wrote."""
    settings, path = golden_settings(case), golden_file(f"{case}.transformer.pt")
    recorded = torch.load(path, weights_only=True)
    written = released_stage(load_stage(path, settings["stage"], golden_config(settings), CPU))
    assert written.keys() == recorded.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in recorded.items())


@pytest.mark.parametrize("name", ["semantic", "coarse", "fine"])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"use_conv_ff": False, "use_absolute_position_embeddings": True},
        {"relative_position_bias_type": "t5"},
        {"relative_position_bias_type": "none"},
    ],
)
def test_a_stage_comes_back_whole(tmp_path: Path, name: str, keys: dict) -> None:
    config, path = _small_config(**keys), tmp_path / f"{name}.transformer.14000.pt"
    stage = build_stage(name, config)
    torch.save(released_stage(stage), path)
    loaded = load_stage(path, name, config, CPU)
    assert all(torch.equal(loaded.state_dict()[key], tensor) for key, tensor in stage.state_dict().items())


def test_one_key_more_and_one_less(tmp_path: Path) -> None:
    config, path = _small_config(), tmp_path / "semantic.transformer.1.pt"
    tensors = released_stage(build_stage("semantic", config))
    tensors.pop("transformer.layers.1.0.to_q.weight")
    torch.save({**tensors, "surplus.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError) as error:
        load_stage(path, "semantic", config, CPU)
    for words in ("missing transformer.blocks.1.attention.to_query.weight", "unexpected surplus.weight", str(path)):
        assert words in str(error.value)


def test_a_layer_norm_with_a_shift_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "semantic.transformer.1.pt"
    tensors = released_stage(build_stage("semantic", _small_config()))
    tensors["transformer.norm.beta"] += 1
    torch.save(tensors, path)
    with pytest.raises(UserError, match=r"transformer\.norm\.beta is not zero"):
        released.read(path, "semantic")


@pytest.mark.parametrize(
    ("written", "wanted", "words"),
    [
        ("semantic", "coarse", "holds semantic weights; coarse weights are needed"),
        ("coarse", "semantic", "semantic weights are needed"),
        ("coarse", "clap_rvq", "clap_rvq weights are needed"),
        ("fine", "coarse", "holds fine weights; coarse weights are needed"),
        ("clap_rvq", "semantic", "holds clap_rvq weights; semantic weights are needed"),
        ("other", "fine", "holds no released weights; fine weights are needed"),
        ("semantic", "hubert_kmeans", "not a k-means file of joblib"),
    ],
)
def test_a_file_of_another_kind(tmp_path: Path, written: str, wanted: str, words: str) -> None:
    config, path = _small_config(), tmp_path / f"{written}.pt"
    if written == "clap_rvq":
        tensors = released_rvq(ClapQuantizer(config.clap_rvq_cfg, 4))
    else:
        tensors = {"weight": torch.zeros(2)} if written == "other" else released_stage(build_stage(written, config))
    torch.save(tensors, path)
    with pytest.raises(UserError, match=words):
        released.read(path, wanted)


def test_a_quantizer_comes_back_whole(tmp_path: Path) -> None:
    config, path = _small_config(), tmp_path / "clap.rvq.950_no_fusion.pt"
    quantizer = ClapQuantizer(config.clap_rvq_cfg, 4)
    quantizer.update(torch.randn(64, 4))
    torch.save(released_rvq(quantizer), path)
    loaded = ClapQuantizer.load(path, config, CPU)
    assert loaded.state_dict().keys() == quantizer.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[key], tensor) for key, tensor in quantizer.state_dict().items())


def test_an_untrained_released_quantizer_is_refused(tmp_path: Path) -> None:
    config, path = _small_config(), tmp_path / "clap.rvq.0.pt"
    torch.save(released_rvq(ClapQuantizer(config.clap_rvq_cfg, 4)), path)
    with pytest.raises(UserError, match="never trained"):
        ClapQuantizer.load(path, config, CPU)


def test_recorded_centroids() -> None:
    read = released.read(golden_file("kmeans.joblib"), "hubert_kmeans")["centroids"]
    assert torch.equal(read, golden_tensors("mert_kmeans")["cluster_centers"])


@pytest.mark.parametrize("compress", [0, 3, ("zlib", 9), ("gzip", 3)])
def test_centroids_plain_and_compressed(tmp_path: Path, compress: object) -> None:
    path = write_released_kmeans(CENTROIDS, tmp_path / "kmeans_10s_no_fusion.joblib", compress)
    assert torch.equal(released.read(path, "hubert_kmeans")["centroids"], CENTROIDS)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("layout", ["fortran", "double", "big-endian", "random state"])
def test_centroids_in_every_layout(tmp_path: Path, layout: str, protocol: int) -> None:
    kmeans, path = released_kmeans(CENTROIDS), tmp_path / "kmeans.joblib"
    if layout == "fortran":
        kmeans.cluster_centers_ = np.asfortranarray(CENTROIDS.numpy())
    elif layout == "double":
        kmeans.cluster_centers_ = CENTROIDS.numpy().astype(np.float64)
    elif layout == "big-endian":
        kmeans.cluster_centers_ = CENTROIDS.numpy().astype(">f4")
    else:
        kmeans.random_state = np.random.RandomState(0)
        kmeans.tol = np.float64(0.5)
    joblib.dump(kmeans, path, protocol=protocol)
    assert torch.equal(released.read(path, "hubert_kmeans")["centroids"], CENTROIDS)


class Attack:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def _attacked_kmeans(attack: Attack, how: str) -> object:
    if how == "root":
        return attack
    kmeans = released_kmeans(CENTROIDS)
    kmeans.tol = attack if how == "attribute" else np.array([attack], dtype=object)
    return kmeans


@pytest.mark.parametrize("how", ["root", "attribute", "array of objects"])
@pytest.mark.parametrize("compress", [0, 3])
def test_a_joblib_file_that_would_run_a_command(tmp_path: Path, how: str, compress: int) -> None:
    path, executed = tmp_path / "kmeans.joblib", tmp_path / "executed"
    joblib.dump(_attacked_kmeans(Attack(executed), how), path, compress=compress)
    with pytest.raises(UserError, match=r"kmeans\.joblib: (refused: this pickle names|not a whole k-means)") as error:
        released.read(path, "hubert_kmeans")
    assert "\n" not in str(error.value)
    assert not executed.exists()


@pytest.mark.parametrize("content", [subprocess.Popen, eval, PCA(), os.getcwd])
def test_a_joblib_file_that_names_something_else(tmp_path: Path, content: object) -> None:
    path = tmp_path / "kmeans.joblib"
    joblib.dump(content, path)
    with pytest.raises(UserError, match="refused: this pickle names"):
        released.read(path, "hubert_kmeans")


def test_a_pt_file_that_would_run_a_command(tmp_path: Path) -> None:
    path, executed = tmp_path / "semantic.transformer.1.pt", tmp_path / "executed"
    torch.save({"start_tokens.0": Attack(executed)}, path)
    with pytest.raises(UserError, match="refused"):
        released.read(path, "semantic")
    assert not executed.exists()


@pytest.mark.parametrize("content", [{"cluster_centers_": 1}, [1, 2], np.zeros((3, 2)), "text"])
def test_a_joblib_file_without_centroids(tmp_path: Path, content: object) -> None:
    path = tmp_path / "kmeans.joblib"
    joblib.dump(content, path)
    with pytest.raises(UserError, match="holds no fitted k-means"):
        released.read(path, "hubert_kmeans")


def test_compression_that_is_not_read(tmp_path: Path) -> None:
    path = write_released_kmeans(CENTROIDS, tmp_path / "kmeans.joblib", ("xz", 3))
    with pytest.raises(UserError, match="plain or compressed with zlib"):
        released.read(path, "hubert_kmeans")


def test_a_compression_bomb(tmp_path: Path) -> None:
    path = tmp_path / "kmeans.joblib"
    packer, zeros = zlib.compressobj(1), bytes(1 << 20)
    path.write_bytes(b"".join(packer.compress(zeros) for _ in range(257)) + packer.flush())
    assert path.stat().st_size < 4 << 20
    with pytest.raises(UserError, match="larger than 256 MiB"):
        released.read(path, "hubert_kmeans")


def test_a_bomb_of_steps(tmp_path: Path) -> None:
    path = tmp_path / "kmeans.joblib"
    path.write_bytes(b"\x80\x04" + b"N\x94" * 1_000_000 + b".")
    with pytest.raises(UserError, match="more steps"):
        released.read(path, "hubert_kmeans")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_never_crash(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("damaged") / "kmeans.joblib"
    content = bytearray(golden_file("kmeans.joblib").read_bytes())
    cut = data.draw(st.integers(0, len(content)))
    if data.draw(st.booleans()):
        content = content[:cut]
    for position in data.draw(st.lists(st.integers(0, 620), max_size=4)):
        if position < len(content):
            content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        assert released.read(path, "hubert_kmeans")["centroids"].ndim == 2


def test_missing_and_empty_files(tmp_path: Path) -> None:
    empty = tmp_path / "kmeans.joblib"
    empty.touch()
    for path in (tmp_path / "nothing.joblib", empty):
        with pytest.raises(UserError, match=str(path)):
            released.read(path, "hubert_kmeans")


def test_a_number_larger_than_any_file(tmp_path: Path) -> None:
    path = tmp_path / "kmeans.joblib"
    path.write_bytes(pickle.PROTO + b"\x04" + pickle.BINBYTES8 + (1 << 62).to_bytes(8, "little") + b"x.")
    with pytest.raises(UserError, match="not a whole k-means"):
        released.read(path, "hubert_kmeans")


@pytest.mark.parametrize("length", [1 << 34, 1 << 62])
def test_memory_for_bytes_that_are_not_there_is_not_taken(tmp_path: Path, length: int) -> None:
    path = tmp_path / "kmeans.joblib"
    for step in (pickle.BYTEARRAY8, pickle.BINBYTES8, pickle.BINUNICODE8, pickle.FRAME):
        path.write_bytes(pickle.PROTO + b"\x05" + step + length.to_bytes(8, "little") + b"x.")
        taken = _most_memory(lambda: _refused(path))
        assert taken < 1 << 20


def test_memory_for_an_array_that_is_not_there_is_not_taken(tmp_path: Path) -> None:
    path = write_released_kmeans(CENTROIDS, tmp_path / "kmeans.joblib")
    content = path.read_bytes()
    shape = b"K\x06K\x05\x86"
    assert content.count(shape) == 1
    path.write_bytes(content.replace(shape, b"J\xff\xff\xff\x7fK\x05\x86"))  # 2,147,483,647 rows
    assert _most_memory(lambda: _refused(path)) < 1 << 20


def test_what_stands_for_a_name_cannot_be_altered(tmp_path: Path) -> None:
    """A state for a class or an array would set their attributes."""
    path, name = tmp_path / "kmeans.joblib", b"csklearn.cluster._kmeans\nKMeans\n"
    state = b"N}\x8c\x04nameK\x01s\x86b."
    for steps in (name + state, b"}" + state, b"(" + name + state):
        path.write_bytes(b"\x80\x04" + steps)
        _refused(path)
    written = write_released_kmeans(CENTROIDS, tmp_path / "whole.joblib")
    assert torch.equal(released.read(written, "hubert_kmeans")["centroids"], CENTROIDS)


def _refused(path: Path) -> None:
    with pytest.raises(UserError, match="not a whole k-means"):
        released.read(path, "hubert_kmeans")


def _most_memory(work: Callable[[], None]) -> int:
    """Bytes that Python and NumPy hold at most during work."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
