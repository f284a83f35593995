"""EnCodec as a tokenizer: small models in our directory format against the encodec package itself."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from encodec import EncodecModel
from helpers.golden_cases import CPU, closest
from helpers.small_backbones import ENCODEC, build_codec, fill_codebooks, model_config
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from open_musiclm.config import EncodecConfig, GlobalConfig, ModelConfig
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.encodec_directory import EncodecArchitecture, load_encodec
from open_musiclm.tokenizers.encodec_package import RELEASED_FILE

HOP = 320


def _config(folder: Path | str, coarse: int = 3, fine: int = 5, **keys: object) -> ModelConfig:
    values = {"model_name": str(folder), "bandwidth": 2.4, "codebook_size": 16} | keys
    windows = GlobalConfig(num_coarse_quantizers=coarse, num_fine_quantizers=fine)
    return model_config(windows, EncodecConfig(**values))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_codec(tmp_path_factory.mktemp("encodec"))


@pytest.fixture(scope="module")
def codec(folder: Path) -> Codec:
    return Codec.load(_config(folder), CPU)


def test_rates(codec: Codec) -> None:
    assert (codec.sample_hz, codec.hop) == (24000, HOP)


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(1, 4000), batch=st.integers(1, 3), quantizers=st.integers(1, 8))
def test_shapes_for_any_length(codec: Codec, samples: int, batch: int, quantizers: int) -> None:
    codes = codec.encode(torch.randn(batch, samples))
    assert codes.shape == (batch, math.ceil(samples / HOP), 8)
    assert 0 <= int(codes.min()) <= int(codes.max()) < 16
    assert codec.decode(codes[..., :quantizers]).shape == (batch, codes.shape[1] * HOP)


@pytest.mark.parametrize(("bandwidth", "coarse", "fine"), [(0.9, 1, 2), (1.5, 3, 2), (2.4, 3, 5)])
def test_codes_and_waves_are_the_packages_own(folder: Path, bandwidth: float, coarse: int, fine: int) -> None:
    codec = Codec.load(_config(folder, coarse, fine, bandwidth=bandwidth), CPU)
    upstream, _ = load_encodec(folder)
    upstream.set_target_bandwidth(bandwidth)
    waves = torch.randn(2, 5000)
    with torch.no_grad():
        frames = upstream.encode(waves.unsqueeze(1))
        decoded = upstream.decode(frames).squeeze(1)
    codes = codec.encode(waves)
    assert torch.equal(codes, frames[0][0].transpose(1, 2))
    assert closest(codec.decode(codes), decoded) < 1e-6
    assert all(len(codes[..., index].unique()) > 2 for index in range(codes.shape[-1]))


def test_never_trains(folder: Path) -> None:
    codec = Codec.load(_config(folder), CPU)
    before = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    codec.train()
    codec.encode(torch.randn(1, 3000))
    assert all(torch.equal(before[name], tensor) for name, tensor in codec.state_dict().items())
    assert not any(parameter.requires_grad for parameter in codec.parameters())


def test_on_mps_the_cpu_does_the_work(folder: Path) -> None:
    codec = Codec.load(_config(folder), torch.device("mps"))
    assert {tensor.device for tensor in codec.state_dict().values()} == {CPU}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"bandwidth": 6.0}, ["bandwidth", "6", "0.9, 1.5, 2.4"]),
        ({"bandwidth": 1.5}, ["bandwidth", "5 codebooks", "num_coarse_quantizers", "8"]),
        ({"codebook_size": 1024}, ["codebook_size", "1024", "16"]),
        ({"sample_hz": 48000}, ["sample_hz", "48000", "24000"]),
        ({"output_hz": 50}, ["output_hz", "50", "75"]),
        ({"model_name": "encodec_48khz"}, ["encodec_48khz", "stereo"]),
        ({"model_name": "encodec_32khz"}, ["model_name", "encodec_24khz"]),
    ],
)
def test_a_config_that_does_not_fit(folder: Path, keys: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        Codec.load(_config(**({"folder": folder} | {"model_name": str(folder)} | keys)), CPU)
    assert all(word in str(error.value) for word in ["encodec_cfg", *words])


def test_a_damaged_released_file(tmp_path: Path) -> None:
    (tmp_path / RELEASED_FILE).write_bytes(b"something else")
    with pytest.raises(UserError, match=f"{RELEASED_FILE}: damaged or another file"):
        Codec.load(_config(tmp_path, bandwidth=6.0, codebook_size=1024), CPU)


def test_a_directory_without_weights_or_cut_short(tmp_path: Path) -> None:
    folder = build_codec(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: not a whole safetensors file"):
        load_encodec(folder)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_encodec(folder)


def test_a_directory_with_another_key(tmp_path: Path) -> None:
    path = build_codec(tmp_path) / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "extra": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="extra"):
        load_encodec(tmp_path)
    tensors.pop("encoder.model.0.conv.conv.bias")
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"encoder\.model\.0\.conv\.conv\.bias"):
        load_encodec(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden": 3}, "hidden"),
        ({"n_filters": "many"}, "n_filters"),
        ({"bins": 12}, "power of two"),
        ({"ratios": [7, 5]}, "multiple of the product of ratios, 35"),
        ({"target_bandwidths": [6.0]}, "6.0 kbps is 20 codebooks"),
    ],
)
def test_an_architecture_that_cannot_be(tmp_path: Path, changes: dict, words: str) -> None:
    path = build_codec(tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=words):
        load_encodec(tmp_path)
    with pytest.raises(ValidationError):
        EncodecArchitecture(**(ENCODEC.model_dump() | changes))


def test_bandwidths_of_the_released_model() -> None:
    released = EncodecArchitecture()
    assert [released.quantizers_at(bandwidth) for bandwidth in released.target_bandwidths] == [2, 4, 8, 16, 32]
    assert [released.bandwidth_of(quantizers) for quantizers in (2, 8, 32)] == [1.5, 6.0, 24.0]


@pytest.mark.upstream
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    ("place", "bandwidths"), [("directory", (1.5, 3.0, 12.0, 24.0)), ("cache of torch.hub", (6.0,))]
)
def test_full_size_encodec_equals_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, bandwidths: tuple[float, ...]
) -> None:
    torch.manual_seed(0)
    upstream = EncodecModel.encodec_model_24khz(pretrained=False)
    fill_codebooks(upstream)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save(upstream.state_dict(), folder / "new.th")
    digest = hashlib.sha256((folder / "new.th").read_bytes()).hexdigest()[:8]
    (folder / "new.th").rename(folder / f"encodec_24khz-{digest}.th")
    monkeypatch.setattr("open_musiclm.tokenizers.encodec_package.RELEASED_FILE", f"encodec_24khz-{digest}.th")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    name = "encodec_24khz" if place == "cache of torch.hub" else folder
    waves = torch.randn(1, 24001)
    for bandwidth in bandwidths:
        quantizers = round(bandwidth / 0.75)
        codec = Codec.load(_config(name, 1, quantizers - 1, bandwidth=bandwidth, codebook_size=1024), CPU)
        upstream.set_target_bandwidth(bandwidth)
        with torch.no_grad():
            frames = upstream.encode(waves.unsqueeze(1))
            decoded = upstream.decode(frames).squeeze(1)
        codes = codec.encode(waves)
        assert torch.equal(codes, frames[0][0].transpose(1, 2))
        assert codes.shape == (1, 76, quantizers)
        assert closest(codec.decode(codes), decoded) < 1e-6
