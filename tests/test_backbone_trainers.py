"""EnCodec, CLAP and MERT in training, by their scripts, on a folder of sound."""

import json
import math

import pytest
import torch
from accelerate import Accelerator
from helpers import forks
from helpers.paths import DEMO, REPOSITORY
from helpers.run_logs import losses
from helpers.small_backbones import ENCODEC, build_codec, model_config
from safetensors.torch import load_file
from transformers import ClapFeatureExtractor

from open_musiclm.audio import read_sound, to_int16_and_back, write_wave
from open_musiclm.config import EncodecConfig, HubertKmeansConfig, load_model_config
from open_musiclm.config.backbones import (
    ClapArchitecture,
    ClapTrainerConfig,
    ClapTrainingConfig,
    EncodecTrainerConfig,
    MertArchitecture,
    MertTrainingConfig,
)
from open_musiclm.config.json_files import load_section
from open_musiclm.data.captions import read_captions
from open_musiclm.data.sound_dataset import SoundBatch
from open_musiclm.errors import UserError
from open_musiclm.metrics.codec import si_sdr
from open_musiclm.tokenizers.clap_mel import ClapMel
from open_musiclm.tokenizers.encodec_directory import EncodecArchitecture, load_encodec
from open_musiclm.tokenizers.mert import Mert
from open_musiclm.training.backbones.captioned_sounds import CaptionedBatch
from open_musiclm.training.backbones.clap import ClapTrainer
from open_musiclm.training.backbones.clap_model import build_clap, build_feature_extractor, train_text_tokenizer
from open_musiclm.training.backbones.encodec import CROP, EncodecTrainer
from open_musiclm.training.backbones.mert import build_mert
from open_musiclm.training.backbones.spectrograms import Spectrograms
from open_musiclm.training.backbones.train import (
    EncodecTrainingConfig,
    SpectralCodecTrainingConfig,
    VocosTrainingConfig,
    train_clap,
    train_mert,
)
from open_musiclm.training.options import RunOptions
from open_musiclm.training.trainer import IndexedBatch

SMALL = EncodecArchitecture(
    dimension=16, n_filters=4, ratios=[2, 4, 5, 8], lstm=1, n_q=4, bins=16, target_bandwidths=[1.2]
)


def tones(count: int, seconds: float, sample_hz: int) -> torch.Tensor:
    """Decaying tones of random pitch and level."""
    time = torch.arange(round(seconds * sample_hz)) / sample_hz
    pitch = 110 * 2 ** (3 * torch.rand(count, 1))
    return (0.1 + 0.5 * torch.rand(count, 1)) * torch.sin(2 * torch.pi * pitch * time) * torch.exp(-time)


def test_any_script_has_tokens_of_its_own():
    tokenizer = train_text_tokenizer(["a slow tune on a cello", "a fast tune on a flute"] * 3, 400)
    for text in ("a cello", "느린 첼로 🎻"):
        ids = tokenizer(text)["input_ids"]
        assert (ids[0], ids[-1], tokenizer.unk_token_id in ids) == (0, 2, False)
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer("A CELLO")["input_ids"] == tokenizer("a cello")["input_ids"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "not valid JSON"),
        ('{"caption": "x"}', '"file"'),
        ('{"file": "a.wav", "caption": " "}', '"caption"'),
        ("", "no captions"),
    ],
)
def test_a_bad_line_of_captions_is_named(tmp_path, line, named):
    path = tmp_path / "captions.jsonl"
    path.write_text(line)
    with pytest.raises(UserError, match=named):
        read_captions(path)


def test_demo_configs_are_valid():
    load_section(DEMO.parent / "configs/backbones/train_encodec.json", EncodecTrainingConfig)
    load_section(DEMO / "configs/train_clap.json", ClapTrainingConfig)
    load_section(DEMO / "configs/train_mert.json", MertTrainingConfig)
    load_section(DEMO / "configs/train_spectral_codec.json", SpectralCodecTrainingConfig)
    load_section(DEMO / "configs/train_vocos.json", VocosTrainingConfig)
    load_section(DEMO.parent / "configs/backbones/train_vocos.json", VocosTrainingConfig)


@pytest.fixture
def sounds(tmp_path):
    torch.manual_seed(0)
    folder, lines = tmp_path / "sounds", []
    for number, wave in enumerate(tones(6, 1.0, 24000)):
        write_wave(folder / f"{number}.wav", wave, 24000)
        lines.append(json.dumps({"file": f"{number}.wav", "caption": f"tone number {number}"}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


def trainer(folder, **more):
    shared = {"folder": str(folder), "num_train_steps": 2, "batch_size": 2, "lr": 1e-3, "num_workers": 0}
    return shared | {"valid_frac": 0.4, "save_model_every": 1, "save_results_every": 2, **more}


def run(script, folder, config, *more):
    path = folder / f"{script}.json"
    path.write_text(json.dumps(config))
    script = REPOSITORY / "scripts" / f"{script}.py"
    return forks.run([script, "--config", path, "--device", "cpu", "--log_with", "none", *more], cwd=folder)


def resume_from(results):
    return ["--results_folder", "again", "--continue_from_dir", results, "--continue_from_step", "1"]


@pytest.mark.slow
def test_train_encodec_writes_a_codec_and_goes_on_as_if_never_stopped(sounds, tmp_path):
    config = {
        "architecture": SMALL.model_dump(),
        "trainer": trainer(
            sounds,
            crop_seconds=0.4,
            spectrogram_windows=[64, 256],
            adversarial_weight=3.0,
            feature_matching_weight=3.0,
            adversarial_from_step=1,
            discriminator_filters=2,
        ),
    }
    whole = run("train_encodec", tmp_path, config, "--results_folder", "whole")
    assert whole.returncode == 0, whole.stderr
    model, architecture = load_encodec(tmp_path / "whole/checkpoints/step_00000002/encodec")
    assert architecture == SMALL
    assert all(layer._codebook.inited for layer in model.quantizer.vq.layers)
    again = run("train_encodec", tmp_path, config, *resume_from("whole"))
    assert again.returncode == 0, again.stderr
    assert losses(tmp_path / "again")[2] == pytest.approx(losses(tmp_path / "whole")[2], rel=1e-5)


def test_spectrograms_kept_on_disk_are_those_of_the_sound_until_it_changes(tmp_path):
    extractor = build_feature_extractor()
    sound, kept = tmp_path / "a.wav", Spectrograms(extractor, tmp_path / "kept")
    torch.manual_seed(0)
    write_wave(sound, tones(1, 11.0, 24000)[0], 24000)
    computed = Spectrograms(extractor, None).of(sound)
    assert computed.shape == (1101, 64)
    for _ in range(2):
        torch.testing.assert_close(kept.of(sound).float(), computed, rtol=0, atol=0.05)
    assert len(list((tmp_path / "kept").iterdir())) == 1
    write_wave(sound, tones(1, 2.0, 24000)[0], 24000)
    changed = kept.of(sound).float()
    assert changed.shape == (1001, 64)  # filled up to CLAP's ten seconds
    torch.testing.assert_close(changed, Spectrograms(extractor, None).of(sound), rtol=0, atol=0.05)
    extractor = ClapFeatureExtractor(feature_size=64, sampling_rate=48000, frequency_min=0, frequency_max=8000)
    other = Spectrograms(extractor, tmp_path / "kept").of(sound).float()
    torch.testing.assert_close(other, Spectrograms(extractor, None).of(sound), rtol=0, atol=0.05)


def test_a_crop_of_a_whole_spectrogram_is_the_spectrogram_of_the_crop(tmp_path):
    extractor = build_feature_extractor()
    torch.manual_seed(0)
    write_wave(tmp_path / "a.wav", 0.1 * torch.randn(12 * 48000), 48000)
    whole = Spectrograms(extractor, None).of(tmp_path / "a.wav")
    crop = to_int16_and_back(read_sound(tmp_path / "a.wav").wave[48000 : 11 * 48000])
    alone = ClapMel(extractor)(crop[None]).spectrograms[0, 0]
    torch.testing.assert_close(whole[102:1099], alone[2:-2], rtol=0, atol=0.01)


@pytest.mark.slow
def test_train_clap_writes_what_clap_loads(sounds, tmp_path):
    architecture = {"embedding_dim": 16, "text_dim": 16, "text_layers": 1, "text_heads": 2, "audio_dim": 8}
    config = {
        "architecture": {**architecture, "audio_depths": [1, 1], "audio_heads": [1, 2]},
        "trainer": trainer(sounds, spectrogram_folder="spectrograms"),
    }
    done = run("train_clap", tmp_path, config, "--results_folder", "clap")
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stderr
    written = {file.name for file in (tmp_path / "clap/checkpoints/step_00000002/clap").iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"} <= written
    again = run("train_clap", tmp_path, config, *resume_from("clap"))
    assert again.returncode == 0, again.stderr
    assert losses(tmp_path / "again")[2] == pytest.approx(losses(tmp_path / "clap")[2], rel=1e-4)
    config["architecture"] |= {"text_layers": 3, "audio_depths": [1, 2]}
    other = run("train_clap", tmp_path, config, *resume_from("clap"), "--overwrite")
    assert other.returncode == 2
    assert (
        "another architecture than the config's: text_layers 1, not 3, audio_depths [1, 1], not [1, 2]" in other.stderr
    )


def test_folders_named_train_and_valid_keep_the_split_of_a_clap(sounds, tmp_path, monkeypatch):
    lines = [json.loads(line) for line in (sounds / "captions.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["file"] = f"{'valid' if number == 3 else 'train'}/{line['file']}"
        write_wave(sounds / line["file"], read_sound(sounds / f"{number}.wav").wave, 24000)
    (sounds / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    architecture = {"embedding_dim": 16, "text_dim": 16, "text_layers": 1, "text_heads": 2, "audio_dim": 8}
    config = ClapTrainingConfig.model_validate(
        {"architecture": {**architecture, "audio_depths": [1, 1], "audio_heads": [1, 2]}, "trainer": trainer(sounds)}
    )
    found = []
    monkeypatch.setattr("open_musiclm.training.backbones.train._train", lambda trainer, data, *rest: found.append(data))
    train_clap(config, RunOptions("clap", tmp_path / "clap", log_with="none", device="cpu"), None)
    assert [path.name for path in found[0].validation.paths] == ["3.wav"]
    assert len(found[0].training) == 5


def test_a_backbone_cannot_be_sharded(sounds, tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "is_fsdp2", True)
    config = ClapTrainingConfig.model_validate({"architecture": {}, "trainer": trainer(sounds)})
    options = RunOptions("clap", tmp_path / "clap", log_with="none", device="cpu")
    for _ in range(2):  # the folder was released
        with pytest.raises(UserError, match="only stages can be sharded"):
            train_clap(config, options, None)


MERT = {"feature_dim": 16, "layers": 2, "heads": 2, "feed_forward_dim": 16, "front_end_channels": 8}
MERT |= {"position_kernel": 8, "position_groups": 2}


@pytest.fixture
def codec_config(tmp_path):
    """The path of a model config that names a small codec."""
    build_codec(tmp_path / "codec")
    codec = EncodecConfig(model_name="./codec", bandwidth=2.4, codebook_size=ENCODEC.bins)
    (tmp_path / "model.json").write_text(model_config(codec).model_dump_json())
    return tmp_path / "model.json"


@pytest.mark.slow
def test_train_mert_writes_what_mert_loads(sounds, tmp_path, codec_config):
    config = {"architecture": MERT, "trainer": trainer(sounds, crop_seconds=0.5)}
    done = run("train_mert", tmp_path, config, "--results_folder", "mert", "--model_config", codec_config)
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stderr
    written = tmp_path / "mert/checkpoints/step_00000002/mert"
    section = HubertKmeansConfig(model_name=str(written), embed_layer=1)
    features = Mert.load(model_config(section), torch.device("cpu")).features(torch.randn(1, 16000))
    assert features.shape == (1, 49, 16)
    assert features.isfinite().all()


@pytest.mark.parametrize("norm", [True, False])
def test_train_mert_starts_from_the_weights_of_init(sounds, tmp_path, codec_config, norm):
    architecture = {**MERT, "feature_projection_norm": norm}
    begun = build_mert(MertArchitecture.model_validate(architecture))
    begun.save_pretrained(tmp_path / "begun")
    almost_none = {"num_train_steps": 1, "lr": 1e-12, "init": str(tmp_path / "begun")}
    content = {"architecture": architecture, "trainer": trainer(sounds, crop_seconds=0.5) | almost_none}
    config = MertTrainingConfig.model_validate(content)
    options = RunOptions("mert", tmp_path / "mert", log_with="none", device="cpu")
    written = train_mert(config, load_model_config(codec_config), options, fine_tune_from=None)
    expected = load_file(tmp_path / "begun/model.safetensors")
    for name, tensor in load_file(written / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)


def test_train_mert_names_an_init_that_does_not_fit(sounds, tmp_path, codec_config):
    build_mert(MertArchitecture.model_validate({**MERT, "layers": 1})).save_pretrained(tmp_path / "begun")
    content = {"architecture": MERT, "trainer": trainer(sounds, init=str(tmp_path / "begun"))}
    options = RunOptions("mert", tmp_path / "mert", log_with="none", device="cpu")
    with pytest.raises(UserError, match=r"begun/model\.safetensors: does not fit this MERT"):
        train_mert(MertTrainingConfig.model_validate(content), load_model_config(codec_config), options, None)


def test_an_encodec_learns_the_same_in_bfloat16_as_in_float32():
    """With 16 channels and a stride of 8, which some CPUs convolve wrongly in bfloat16."""
    architecture = EncodecArchitecture(
        dimension=16, n_filters=16, ratios=[2, 4, 5, 8], lstm=1, n_q=2, bins=16, target_bandwidths=[0.6]
    )
    batch = IndexedBatch(SoundBatch({CROP: tones(4, 0.5, 24000)}, []), range(4))
    losses = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        config = EncodecTrainerConfig.model_validate(
            {"folder": "", "num_train_steps": 1, "batch_size": 4, "lr": 1e-4, "precision": precision}
        )
        metrics = EncodecTrainer(Accelerator(cpu=True), architecture, config).train_step(iter([batch]), 0).metrics
        losses[precision] = [metrics["spectrogram"], metrics["commitment"]]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


@pytest.mark.parametrize(("init", "lets_sound_through"), [("random", False), ("transform", True)])
def test_an_encodec_starts_as_its_config_says(init, lets_sound_through):
    torch.manual_seed(0)
    config = EncodecTrainerConfig.model_validate(
        trainer("made up", init=init, lr=1e-12, batch_size=8, spectrogram_windows=[64, 256])
    )
    encodec = EncodecTrainer(Accelerator(cpu=True), SMALL, config)
    before = [parameter.clone() for parameter in encodec.model.encoder.parameters()]
    batch = SoundBatch({"codec": tones(8, 1.0, 24000)}, [])
    encodec.train_step(iter([IndexedBatch(batch, range(8))]), 0)
    after = list(encodec.model.encoder.parameters())
    same = all(torch.allclose(one, other, atol=1e-6) for one, other in zip(before, after, strict=True))
    assert same != lets_sound_through
    waves = tones(4, 0.4, 24000)
    with torch.no_grad():
        decoded = encodec.model.decoder(encodec.model.encoder(waves[:, None]))[:, 0]
    assert (si_sdr(decoded, waves).mean() > 5) == lets_sound_through


def test_clap_saves_the_trained_temperature_for_text_and_sound(tmp_path):
    """Training multiplies by `logit_scale_a`, inference of text by `logit_scale_t`."""
    torch.manual_seed(0)
    captions = ["a slow tune on a cello", "a fast tune on a flute"]
    tokenizer = train_text_tokenizer(captions * 3, 300)
    architecture = ClapArchitecture(
        embedding_dim=16, text_dim=16, text_layers=1, text_heads=2, audio_dim=8, audio_depths=[1, 1], audio_heads=[1, 2]
    )
    config = ClapTrainerConfig.model_validate(trainer("made up", lr=0.1))
    model = build_clap(architecture, len(tokenizer), config.initial_logit_scale)
    clap = ClapTrainer(Accelerator(cpu=True), model, tokenizer, build_feature_extractor(), config)
    batch = CaptionedBatch({}, [], torch.randn(2, 1, 1001, 64), captions)
    for step in range(2):
        assert not clap.train_step(iter([IndexedBatch(batch, range(2))]), step).skipped
    clap.write_weights(tmp_path)
    saved = load_file(tmp_path / "clap/model.safetensors")
    assert saved["logit_scale_a"] != pytest.approx(math.log(config.initial_logit_scale), abs=1e-3)
    assert saved["logit_scale_t"] == saved["logit_scale_a"]


def test_bad_input_is_one_line(sounds, tmp_path):
    config = {"architecture": SMALL.model_dump(), "trainer": trainer(sounds, crop_second=1.0)}
    failed = run("train_encodec", tmp_path, config, "--results_folder", "x")
    assert failed.returncode == 2
    assert "crop_second: unknown key" in failed.stderr
    assert "Traceback" not in failed.stderr
