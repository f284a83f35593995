"""EnCodec in transformers' layout, such as facebook/encodec_32khz, against transformers itself."""

import json
from pathlib import Path

import pytest
import torch
from helpers.golden_cases import CPU, closest
from helpers.preprocessing import settings_of
from helpers.small_backbones import model_config
from helpers.small_stack import build_backbones, build_weights
from transformers import EncodecConfig as UpstreamConfig
from transformers import EncodecModel

from open_musiclm.audio import Sound, find_sounds, write_wave
from open_musiclm.config import EncodecConfig, GlobalConfig, HubertKmeansConfig, load_model_config
from open_musiclm.data.preprocess import Preprocessor
from open_musiclm.data.token_dataset import TokenDataset
from open_musiclm.data.token_store import TokenStore
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokens import token_streams

CONFIGS = Path(__file__).parents[1] / "configs" / "model"
# What the released 32 kHz model has; only num_filters is smaller here.
RELEASED = {
    "target_bandwidths": [2.2],
    "sampling_rate": 32000,
    "upsampling_ratios": [8, 5, 4, 4],
    "use_causal_conv": False,
    "use_conv_shortcut": False,
    "codebook_size": 2048,
    "num_filters": 4,
}


def build(folder: Path, **changes: object) -> EncodecModel:
    """Writes a model with random weights and codebooks around what its encoder makes of noise."""
    torch.manual_seed(0)
    model = EncodecModel(UpstreamConfig(**{**RELEASED, **changes})).eval()
    with torch.no_grad():
        deviation, mean = torch.std_mean(model.encoder(torch.randn(4, 1, 8000)), dim=(0, 2))
        for index, layer in enumerate(model.quantizer.layers):
            layer.codebook.embed.copy_(deviation * 0.7**index * torch.randn(layer.codebook.embed.shape))
            layer.codebook.embed += mean * (index == 0)
    model.save_pretrained(folder)
    return model


def load(folder: Path, quantizers: int = 4, **keys: object) -> Codec:
    windows = GlobalConfig(num_coarse_quantizers=quantizers, num_fine_quantizers=0)
    values = {"bandwidth": 2.2, "codebook_size": 2048, "output_hz": 50, "sample_hz": 32000, **keys}
    return Codec.load(model_config(windows, EncodecConfig(model_name=str(folder), **values)), CPU)


@pytest.mark.parametrize("samples", [64000, 12345, 640])
def test_codes_and_waves_are_those_of_transformers(tmp_path: Path, samples: int) -> None:
    upstream = build(tmp_path)
    codec = load(tmp_path)
    waves = 0.3 * torch.randn(2, samples)
    with torch.no_grad():
        encoded = upstream.encode(waves[:, None], torch.ones(2, 1, samples, dtype=torch.bool), bandwidth=2.2)
        expected = encoded.audio_codes[0]
        decoded = upstream.decode(encoded.audio_codes, encoded.audio_scales).audio_values[:, 0]
    codes = codec.encode(waves)
    assert codes.shape == (2, -(-samples // 640), 4)
    assert torch.equal(codes, expected.transpose(1, 2))
    assert samples < 1000 or all(len(codes[..., index].unique()) > 1 for index in range(4))
    assert closest(codec.decode(codes), decoded[:, : codes.shape[1] * 640]) < 1e-6


def test_a_part_with_its_lookahead_decodes_as_in_the_whole(tmp_path: Path) -> None:
    build(tmp_path)
    codec = load(tmp_path)
    codes = torch.randint(2048, (1, 120, 4))
    whole, part = codec.decode(codes), codec.decode(codes[:, : 100 + codec.lookahead_frames])
    assert closest(part[:, : 100 * 640], whole[:, : 100 * 640]) < 1e-5


def test_other_wrong_or_hostile_configs_are_one_line(tmp_path: Path) -> None:
    build(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    for change, words in (
        ({"model_type": "hubert"}, "an EnCodec is needed"),
        ({"audio_channels": 2}, "audio_channels"),
        ({"upsampling_ratios": []}, "upsampling_ratios"),
        ({"upsampling_ratios": [0, 5]}, "upsampling_ratios"),
        ({"hidden_size": 1 << 30}, "hidden_size"),
        ({"hidden_size": 64}, "do not fit config.json"),
        ({"normalize": True}, "normalize"),
    ):
        path.write_text(json.dumps(content | change))
        with pytest.raises(UserError, match=words) as error:
            load(tmp_path)
        assert "encodec_cfg" in str(error.value)
        assert "\n" not in str(error.value)


def test_every_rate_of_the_shipped_config_follows_from_the_codec() -> None:
    config = load_model_config(CONFIGS / "musiclm_small_32khz.json")
    streams = token_streams(config)
    coarse = streams["coarse"]
    assert (coarse.codebook_size, coarse.quantizers, coarse.frame_hz) == (2048, 4, 50)
    assert config.stage_names == ("semantic", "coarse")
    assert config.encodec_cfg.model_name == "facebook/encodec_32khz"
    assert isinstance(config.hubert_kmeans_cfg, HubertKmeansConfig)


def test_rate_and_codebooks_follow_through_store_training_and_generation(tmp_path: Path) -> None:
    path = build_backbones(tmp_path)
    build(tmp_path / "codec32")
    content = json.loads(path.read_text())
    content["encodec_cfg"] = {"model_name": "./codec32", "bandwidth": 2.2, "codebook_size": 2048}
    content["encodec_cfg"] |= {"output_hz": 50, "sample_hz": 32000}
    content["global_cfg"] |= {"num_coarse_quantizers": 4, "num_fine_quantizers": 0}
    content["coarse_cfg"]["token_layout"] = "frames"
    path.write_text(json.dumps(content))
    stack = build_weights(path)
    model = stack.musiclm(stack.config.stage_names)
    wave = model.generate("a", 1.3)[0]
    assert model.sample_hz == 32000
    assert wave.shape == (41600,)
    chunks = [chunk for _, chunk in model.stream("a", 1.3)]
    assert torch.equal(torch.cat(chunks, dim=1)[0], wave)
    (continued,) = model.generate("a", 0.5, audio_prompt=Sound(0.1 * torch.randn(44100), 44100))
    assert continued.shape == (32000 + 16000,)
    write_wave(tmp_path / "sound/a.wav", 0.1 * torch.randn(32000 * 4), 32000)
    settings = settings_of(tmp_path)
    Preprocessor(stack.config, settings, stack.tokenizer(), {}, CPU).run(find_sounds(tmp_path / "sound"))
    store = TokenStore(tmp_path / "store", stack.config)
    clap, semantic, coarse = TokenDataset(store, [0], "coarse", stack.config, 0)[0]
    assert (clap.shape, semantic.shape, coarse.shape) == ((1, 3), (59, 1), (60, 4))
