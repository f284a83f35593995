"""CLAP: what it embeds, equal to transformers' own processor and model, and what it says when it cannot be loaded."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_clap import CLAP_DIM, build_clap, build_tokenizer, randomize
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

from open_musiclm.audio import to_int16_and_back
from open_musiclm.config import (
    ClapRvqConfig,
    CoarseConfig,
    EncodecConfig,
    FineConfig,
    GlobalConfig,
    HubertKmeansConfig,
    ModelConfig,
    SemanticConfig,
)
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.clap import Clap

CPU = torch.device("cpu")
LARGER = {"hidden_size": 1024, "patch_embeds_hidden_size": 128, "depths": [2, 2, 12, 2]}
LONG_PROMPT = "a slow piece of piano music that goes on and on " * 20


def model_config(section: ClapRvqConfig) -> ModelConfig:
    return ModelConfig(
        global_cfg=GlobalConfig(),
        clap_rvq_cfg=section,
        hubert_kmeans_cfg=HubertKmeansConfig(),
        encodec_cfg=EncodecConfig(),
        semantic_cfg=SemanticConfig(),
        coarse_cfg=CoarseConfig(),
        fine_cfg=FineConfig(),
    )


def load(folder: Path, fusion: bool = False, sample_hz: int = 48000) -> Clap:
    section = ClapRvqConfig(model_name=str(folder), enable_fusion=fusion, sample_hz=sample_hz)
    return Clap.load(model_config(section), CPU)


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def folder(request, tmp_path_factory) -> Path:
    return build_clap(tmp_path_factory.mktemp("clap") / ("fused" if request.param else "unfused"), request.param)


@pytest.fixture(scope="module")
def clap(folder: Path) -> Clap:
    return load(folder, folder.name == "fused")


def sounds(seconds: float) -> torch.Tensor:
    """Noise, a chirp and near silence."""
    time = torch.arange(round(seconds * 48000)) / 48000
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    return torch.stack([0.3 * noise, 0.5 * torch.sin(300 * time * (2 + time)), 1e-3 * noise])


def test_text_equals_transformers_padded_to_77(clap: Clap, folder: Path) -> None:
    prompts = ["fast violin", LONG_PROMPT, "", "한국 음악 🎻"]
    tokenizer = RobertaTokenizer.from_pretrained(folder)
    tokens = tokenizer(prompts, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    assert tokens.input_ids.shape == (4, 77)
    expected = ClapModel.from_pretrained(folder).get_text_features(**tokens).pooler_output
    found = clap.embed_text(prompts)
    assert found.shape == (4, CLAP_DIM) == (4, clap.embedding_dim)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(clap.embed_text(prompts[:1]), found[:1], rtol=0, atol=1e-5)
    assert (found[0] - found[1]).abs().max() > 1e-2


@pytest.mark.parametrize("seconds", [0.01, 3.3, 10])
def test_sound_equals_transformers(clap: Clap, folder: Path, seconds: float) -> None:
    waves = sounds(seconds)
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    features = extractor(list(to_int16_and_back(waves).numpy()), sampling_rate=48000, return_tensors="np")
    expected = (
        ClapModel.from_pretrained(folder)
        .get_audio_features(
            torch.from_numpy(np.asarray(features["input_features"])), torch.zeros(3, 1, dtype=torch.bool)
        )
        .pooler_output
    )
    torch.testing.assert_close(clap.embed_audio(waves), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("seconds", [2, 10, 14.5, 30])
def test_embeddings_are_of_length_one_repeatable_and_independent_of_the_batch(clap: Clap, seconds: float) -> None:
    waves = sounds(seconds)
    embeddings = clap.embed_audio(waves)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(clap.embed_audio(waves), embeddings, rtol=0, atol=0)
    torch.testing.assert_close(clap.embed_audio(waves[1:2]), embeddings[1:2], rtol=0, atol=1e-5)
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-3


def test_longer_sound_is_fused_only_with_fusion(clap: Clap, folder: Path) -> None:
    waves = sounds(30)
    waves[:, : 48000 * 5] = 0
    middle = clap.embed_audio(waves[:, 48000 * 10 : 48000 * 20])
    assert torch.allclose(clap.embed_audio(waves), middle, atol=1e-5) == (folder.name == "unfused")


def test_hears_what_int16_holds_and_no_more(clap: Clap) -> None:
    waves = sounds(2)
    torch.testing.assert_close(clap.embed_audio(waves), clap.embed_audio(to_int16_and_back(waves)), rtol=0, atol=0)
    torch.testing.assert_close(clap.embed_audio(9 * waves), clap.embed_audio((9 * waves).clamp(-1, 1)), rtol=0, atol=0)


def test_is_frozen_and_stays_in_evaluation_mode(clap: Clap) -> None:
    assert not any(parameter.requires_grad for parameter in clap.parameters())
    assert not any(module.training for module in clap.train().modules())
    assert all(parameter.dtype == torch.float32 for parameter in clap.parameters())


def test_half_precision_weights_are_read_as_float32(tmp_path: Path) -> None:
    build_clap(tmp_path / "clap")
    ClapModel.from_pretrained(tmp_path / "clap").half().save_pretrained(tmp_path / "clap")
    assert load(tmp_path / "clap").embed_text(["violin"]).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("laion/clap-htsat-unfused", "local directory"),
        ("./absent", "absent: no such directory"),
        ("/absent/clap", "/absent/clap: no such directory"),
    ],
)
def test_model_that_is_nowhere(monkeypatch, name: str, reason: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=rf"clap_rvq_cfg: model_name: cannot load .*{reason}") as caught:
        Clap.load(model_config(ClapRvqConfig(model_name=name)), CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("absent", "complaint"),
    [
        (["vocab.json", "merges.txt"], r"cannot load .*there is no tokenizer\.json or vocab\.json"),
        (["merges.txt"], r"cannot load .*there is no merges\.txt"),
        (["preprocessor_config.json"], r"cannot load .*there is no preprocessor_config\.json"),
        (["config.json"], r"cannot load .*there is no config\.json"),
        (["model.safetensors"], r"cannot load .*there is no model\.safetensors or .*pytorch_model\.bin"),
    ],
)
def test_directory_that_lacks_a_file(tmp_path: Path, absent: list[str], complaint: str) -> None:
    build_clap(tmp_path / "clap")
    for name in absent:
        (tmp_path / "clap" / name).unlink()
    with pytest.raises(UserError, match=complaint) as caught:
        load(tmp_path / "clap")
    assert "\n" not in str(caught.value)


def test_damaged_weights(tmp_path: Path) -> None:
    weights = build_clap(tmp_path / "clap") / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="clap_rvq_cfg: model_name: cannot load"):
        load(tmp_path / "clap")


def test_tokenizer_of_another_model(tmp_path: Path) -> None:
    build_clap(tmp_path / "clap")
    tokens = json.loads((tmp_path / "clap" / "vocab.json").read_text())
    tokens["<pad>"], tokens["<unk>"] = tokens["<unk>"], tokens["<pad>"]
    (tmp_path / "clap" / "vocab.json").write_text(json.dumps(tokens))
    with pytest.raises(UserError, match="no tokenizer of this CLAP"):
        load(tmp_path / "clap")


def test_config_that_contradicts_the_model(folder: Path, tmp_path: Path) -> None:
    fused = folder.name == "fused"
    with pytest.raises(UserError, match=f"enable_fusion: {str(not fused).lower()}, but .* was trained with"):
        load(folder, not fused)
    with pytest.raises(UserError, match="sample_hz: 44100, but CLAP takes 48000 Hz"):
        load(folder, fused, sample_hz=44100)
    contradictory = Path(shutil.copytree(folder, tmp_path / "clap"))
    extractor = ClapFeatureExtractor(truncation="rand_trunc" if fused else "fusion")
    extractor.save_pretrained(contradictory)
    with pytest.raises(UserError, match=r"preprocessor_config\.json has truncation .* contradicts enable_fusion"):
        load(contradictory, fused)


def test_model_of_another_kind(tmp_path: Path) -> None:
    build_clap(tmp_path / "clap")
    (tmp_path / "clap" / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    with pytest.raises(UserError, match=r"config\.json: model_type: expected 'clap', found 'hubert'"):
        load(tmp_path / "clap")


def test_default_model_follows_fusion(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for fusion, name in ((False, "laion/clap-htsat-unfused"), (True, "laion/clap-htsat-fused")):
        with pytest.raises(UserError, match=f"cannot load {name}"):
            Clap.load(model_config(ClapRvqConfig(enable_fusion=fusion)), CPU)


@pytest.mark.upstream
@pytest.mark.slow
@pytest.mark.parametrize(
    ("audio", "fusion"),
    [({"hidden_size": 1024, "patch_embeds_hidden_size": 128, "depths": [2, 2, 12, 2]}, False), ({}, True)],
    ids=["larger", "fused"],
)
def test_full_size_equals_transformers(tmp_path: Path, audio: dict, fusion: bool) -> None:
    build_tokenizer(tmp_path, ClapConfig().text_config.vocab_size)
    model = ClapModel(ClapConfig(audio_config=audio | {"enable_fusion": fusion})).eval()
    randomize(model)
    model.save_pretrained(tmp_path)
    extractor = ClapFeatureExtractor(frequency_min=50, truncation="fusion" if fusion else "rand_trunc")
    extractor.save_pretrained(tmp_path)
    ours = load(tmp_path, fusion)
    with torch.no_grad():
        tokens = RobertaTokenizer.from_pretrained(tmp_path)(["fast violin"], return_tensors="pt")
        text = model.get_text_features(**tokens).pooler_output
        torch.testing.assert_close(ours.embed_text(["fast violin"]), text, rtol=0, atol=1e-4)
        for seconds in (3.3, 10):
            waves = sounds(seconds)[:2]
            features = extractor(list(to_int16_and_back(waves).numpy()), sampling_rate=48000)["input_features"]
            spectrograms, no = torch.from_numpy(np.stack(features)), torch.zeros(2, 1, dtype=torch.bool)
            expected = model.get_audio_features(spectrograms, no).pooler_output
            torch.testing.assert_close(ours.embed_audio(waves), expected, rtol=0, atol=1e-4)


def test_windows_of_several_waves_are_those_of_each_one_alone(clap: Clap) -> None:
    waves = [sounds(12.5)[1], sounds(10)[0]]
    windows = torch.cat([wave.unfold(0, 480_000, 48_000) for wave in waves])
    found = clap.embed_windows(waves, 480_000, 48_000)
    assert len(found) == 3 + 1
    torch.testing.assert_close(found, clap.embed_audio(windows), rtol=0, atol=1e-5)
