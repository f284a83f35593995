"""MERT features and semantic tokens from a small model in the layout of the real ones."""

import json
from pathlib import Path

import pytest
import torch
from helpers.golden_cases import CPU, closest
from helpers.mert_remote_code import add_remote_code
from helpers.small_backbones import MERT_FEATURES, MERT_LAYERS, build_mert, model_config
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sklearn.cluster import KMeans
from transformers import HubertConfig, HubertModel

from open_musiclm.checkpoints import save_weights
from open_musiclm.config import HubertKmeansConfig, ModelConfig
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.mert import Mert, SemanticTokenizer

CODEBOOK = 8


def _config(folder: Path, **keys: object) -> ModelConfig:
    values = {"model_name": str(folder), "embed_layer": 2, "codebook_size": CODEBOOK} | keys
    return model_config(HubertKmeansConfig(**values))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_mert(tmp_path_factory.mktemp("mert"))


@pytest.fixture(scope="module")
def mert(folder: Path) -> Mert:
    return Mert.load(_config(folder), CPU)


def _edit(folder: Path, **keys: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return folder


def test_a_second_has_49_frames_and_ten_have_499(mert: Mert) -> None:
    assert [mert.frames(seconds * 16000) for seconds in (1, 2, 3, 4, 5, 10)] == [49, 99, 149, 199, 249, 499]


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(0, 5000), batch=st.integers(1, 3))
def test_features_have_as_many_frames_as_promised(mert: Mert, samples: int, batch: int) -> None:
    features = mert.features(torch.randn(batch, samples))
    assert features.shape == (batch, mert.frames(samples), MERT_FEATURES)
    if features.numel():
        assert closest(features.mean(-1), torch.zeros(features.shape[:2])) < 1e-5
        assert closest(features.var(-1), torch.ones(features.shape[:2])) < 1e-3


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("layer", range(MERT_LAYERS + 1))
def test_the_cut_model_equals_the_whole_one(tmp_path: Path, layer: int, stable: bool) -> None:
    folder = _edit(build_mert(tmp_path), do_stable_layer_norm=stable)
    config = HubertConfig.from_dict(json.loads((folder / "config.json").read_text()))
    whole = HubertModel(config).eval()
    whole.load_state_dict(load_file(folder / "model.safetensors"))
    waves = torch.randn(2, 6400)
    with torch.no_grad():
        output = whole(waves, output_hidden_states=True)
    # After the last layer the earlier implementation's transformers gave the normalised output.
    expected = output.last_hidden_state if layer == MERT_LAYERS else output.hidden_states[layer]
    mert = Mert.load(_config(folder, embed_layer=layer, normalize_embeds=False), CPU)
    assert closest(mert.features(waves), expected) < 1e-6


def test_never_trains(mert: Mert) -> None:
    waves = torch.randn(1, 3200)
    before = mert.features(waves)
    mert.train()
    assert torch.equal(mert.features(waves), before)
    assert not before.requires_grad
    assert not any(parameter.requires_grad for parameter in mert.parameters())


def test_samples_beyond_a_whole_hop_are_not_heard(mert: Mert) -> None:
    wave = torch.randn(1, 3200 + 319)
    assert torch.equal(mert.features(wave), mert.features(wave[:, :3200]))


def test_24_khz_has_75_frames_a_second(tmp_path: Path) -> None:
    config = _config(build_mert(tmp_path, sample_hz=24000), target_sample_hz=24000, output_hz=75)
    assert Mert.load(config, CPU).frames(240000) == 749


@pytest.mark.parametrize(
    ("edits", "keys", "words"),
    [
        ({"sample_rate": 24000}, {}, ["target_sample_hz", "16000", "24000"]),
        ({}, {"target_sample_hz": 8000, "seq_len_multiple_of": 160}, ["target_sample_hz"]),
        ({"sample_rate": 8000}, {"target_sample_hz": 8000, "seq_len_multiple_of": 160}, ["seq_len_multiple_of", "320"]),
        ({}, {"embed_layer": 4}, ["embed_layer", "4", "3"]),
        ({"model_type": "bert"}, {}, ["bert", "HuBERT"]),
        ({"deepnorm": True}, {}, ["deepnorm", "--trust_remote_code"]),
        ({"attention_relax": 32.0}, {}, ["attention_relax", "--trust_remote_code"]),
        ({"feature_extractor_cqt": True}, {}, ["feature_extractor_cqt", "--trust_remote_code"]),
        ({"num_hidden_layers": 5}, {}, ["missing"]),
    ],
)
def test_a_config_that_does_not_fit(tmp_path: Path, edits: dict, keys: dict, words: list[str]) -> None:
    folder = _edit(build_mert(tmp_path), **edits)
    with pytest.raises(UserError) as error:
        Mert.load(_config(folder, **keys), CPU)
    assert all(word in str(error.value) for word in ["hubert_kmeans_cfg", *words])
    assert "\n" not in str(error.value)


def test_missing_and_damaged_directories(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot load"):
        Mert.load(_config(tmp_path / "nothing"), CPU)
    folder = build_mert(tmp_path / "cut")
    weights = folder / "model.safetensors"
    whole = {name: tensor.clone() for name, tensor in load_file(weights).items()}
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot load"):
        Mert.load(_config(folder), CPU)
    weights.unlink()
    torch.save(whole, folder / "pytorch_model.bin")
    Mert.load(_config(folder), CPU)
    (folder / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot load"):
        Mert.load(_config(folder), CPU)


def test_a_pickle_in_place_of_weights_is_never_executed(tmp_path: Path) -> None:
    folder = build_mert(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": _Attack(tmp_path / "executed")}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot load"):
        Mert.load(_config(folder), CPU)
    assert not (tmp_path / "executed").exists()


class _Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_half_precision_weights_are_computed_in_single(tmp_path: Path) -> None:
    folder = _edit(build_mert(tmp_path), dtype="float16")
    path = folder / "model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    mert = Mert.load(_config(folder), CPU)
    assert {parameter.dtype for parameter in mert.parameters()} == {torch.float32}


def test_remote_code_runs_only_when_allowed(tmp_path: Path) -> None:
    folder = add_remote_code(_edit(build_mert(tmp_path / "model"), deepnorm=True))
    with pytest.raises(UserError, match="trust_remote_code"):
        Mert.load(_config(folder), CPU)
    with pytest.raises(UserError, match=r"trust_remote_code: true in a config allows nothing .*--trust_remote_code"):
        Mert.load(_config(folder, trust_remote_code=True), CPU)
    trusted = Mert.load(_config(folder), CPU, trust_remote_code=True)
    assert type(trusted.model).__name__ == "MERTModel"
    plain = Mert.load(_config(build_mert(tmp_path / "plain")), CPU)
    waves = torch.randn(1, 3200)
    assert closest(trusted.features(waves), plain.features(waves)) < 1e-6


def test_tokens_are_those_of_scikit_learn(mert: Mert) -> None:
    features = mert.features(torch.randn(2, 16000))
    kmeans = KMeans(CODEBOOK, n_init=1, random_state=0).fit(features.flatten(0, 1).numpy())
    semantic = SemanticTokenizer(mert, torch.from_numpy(kmeans.cluster_centers_))
    expected = torch.from_numpy(kmeans.predict(features.flatten(0, 1).numpy())).long()
    assert torch.equal(semantic.assign(features).flatten(), expected)
    assert len(expected.unique()) == CODEBOOK


def test_centroids_of_our_own_format(folder: Path, tmp_path: Path) -> None:
    config, path = _config(folder), tmp_path / "hubert_kmeans.safetensors"
    centroids = torch.randn(CODEBOOK, MERT_FEATURES)
    save_weights(path, "hubert_kmeans", {"centroids": centroids}, config)
    semantic = SemanticTokenizer.load(path, config, CPU)
    assert torch.equal(semantic.centroids, centroids)
    assert semantic.encode(torch.randn(2, 3200)).shape == (2, 9)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((CODEBOOK + 1, MERT_FEATURES), r"centroids are .* the config wants \[8, features\]"),
        ((CODEBOOK, MERT_FEATURES - 1), r"centroids of 15 numbers; the features .* have 16"),
    ],
)
def test_centroids_of_another_shape(folder: Path, tmp_path: Path, shape: tuple[int, int], message: str) -> None:
    config, path = _config(folder), tmp_path / "hubert_kmeans.safetensors"
    save_weights(path, "hubert_kmeans", {"centroids": torch.randn(shape)}, config)
    with pytest.raises(UserError, match=rf"hubert_kmeans\.safetensors: {message}"):
        SemanticTokenizer.load(path, config, CPU)


MERT_V1_KEYS = {
    "architectures": ["MERTModel"],
    "attention_relax": -1.0,
    "deepnorm": False,
    "feature_extractor_cqt": False,
    "cqt_bins": 336,
    "model_type": "mert_model",
    "mask_time_prob": 0.05,
    "transformers_version": "4.24.0",
}


def _full_size(folder: Path, **keys: object) -> HubertModel:
    """Random weights of MERT's 95 million parameters, saved as pytorch_model.bin with the names of its time."""
    torch.manual_seed(0)
    config = HubertConfig()
    model = HubertModel(config).eval()
    (folder / "config.json").write_text(json.dumps(config.to_dict() | MERT_V1_KEYS | keys))
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = tensor
    torch.save(state, folder / "pytorch_model.bin")
    return model


@pytest.mark.upstream
@pytest.mark.parametrize("version", ["v0", "v1", "v1 with code of its own"])
def test_full_size_mert_equals_transformers(tmp_path: Path, version: str) -> None:
    sample_hz = 16000 if version == "v0" else 24000
    own_code = "own" in version
    edits = {"deepnorm": True} if own_code else {}
    edits |= {} if version == "v0" else {"sample_rate": sample_hz}
    upstream = _full_size(tmp_path, **edits)
    if own_code:
        add_remote_code(tmp_path)
    section = HubertKmeansConfig(
        model_name=str(tmp_path),
        target_sample_hz=sample_hz,
        output_hz=sample_hz // 320,
        normalize_embeds=False,
    )
    mert = Mert.load(model_config(section), CPU, trust_remote_code=own_code)
    waves = torch.randn(2, 2 * sample_hz)
    with torch.no_grad():
        expected = upstream(waves, output_hidden_states=True).hidden_states[7]
    assert expected.shape[1] == mert.frames(2 * sample_hz) == 2 * sample_hz // 320 - 1
    assert closest(mert.features(waves), expected) < 1e-5
