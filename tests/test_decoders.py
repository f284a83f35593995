"""Vocos decoders: the released layout against the vocos package, and our own in generation and bundles."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from helpers.golden_cases import CPU, closest
from helpers.small_backbones import ENCODEC, build_codec, model_config
from helpers.small_stack import CODEC, Stack
from helpers.small_training import trainer_config
from torch import nn
from vocos.feature_extractors import EncodecFeatures
from vocos.heads import ISTFTHead
from vocos.models import VocosBackbone
from vocos.pretrained import Vocos

from open_musiclm import GenerationConfig, MusicLM
from open_musiclm.checkpoints.bundle import pack
from open_musiclm.config import STAGE_NAMES, EncodecConfig, GlobalConfig, ModelConfig, load_model_config
from open_musiclm.errors import UserError, UserNotice
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.encodec_directory import EncodecArchitecture, load_encodec
from open_musiclm.tokenizers.own_directory import save_model
from open_musiclm.tokenizers.vocos_decoder import VocosArchitecture, VocosDecoder
from open_musiclm.training.train_stage import TokenizerPaths, stage_tools

RELEASED = {"dim": 384, "intermediate_dim": 1152, "num_layers": 8, "adanorm_num_embeddings": 4}
BANDWIDTHS = {1.5: 2, 3.0: 4, 6.0: 8, 12.0: 16}
REAL_SIZES = EncodecArchitecture(n_filters=2, n_q=16, target_bandwidths=tuple(BANDWIDTHS))


def config_of(codec: Path, decoder: Path | None, quantizers: int, **keys: object) -> ModelConfig:
    windows = GlobalConfig(num_coarse_quantizers=1, num_fine_quantizers=quantizers - 1)
    values = {"model_name": str(codec), "decoder": None if decoder is None else str(decoder), **keys}
    return model_config(windows, EncodecConfig(**values))


def build_decoder(folder: Path, codec: EncodecArchitecture, **shape: object) -> Path:
    """Writes a small decoder with random weights for a codec."""
    sizes = {"quantizers": (3, 8), "dim": 16, "intermediate_dim": 32, "layers": 2, **shape}
    rates = {"sample_hz": codec.sample_hz, "hop": codec.hop, "latent_dim": codec.dimension}
    architecture = VocosArchitecture(**{"n_fft": 2 * codec.hop, "head_hop": codec.hop, **rates, **sizes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VocosDecoder(architecture)
    nn.init.normal_(model.head.out.weight, std=0.3)
    save_model(model, architecture, folder)
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Vocos]:
    """An EnCodec, a Vocos for it in the released layout, both with random weights, and the package's own Vocos."""
    folder = tmp_path_factory.mktemp("released")
    codec, _ = load_encodec(build_codec(folder / "codec", REAL_SIZES))
    torch.manual_seed(0)
    features = EncodecFeatures.__new__(EncodecFeatures)  # its own start downloads EnCodec
    nn.Module.__init__(features)
    features.encodec, features.num_q, features.bandwidths = codec, 16, list(BANDWIDTHS)
    features.codebook_weights = nn.Parameter(torch.cat([layer.codebook for layer in codec.quantizer.vq.layers]), False)
    vocos = Vocos(features, VocosBackbone(128, **RELEASED), ISTFTHead(384, 1280, 320, padding="same")).eval()
    nn.init.normal_(vocos.head.out.weight, std=0.1)
    for parameter in vocos.backbone.parameters():
        nn.init.normal_(parameter, std=0.05)
    decoder = folder / "vocos"
    decoder.mkdir()
    kept = {name: tensor for name, tensor in vocos.state_dict().items() if ".encodec." not in name}
    torch.save(kept, decoder / "pytorch_model.bin")
    parts = {
        "feature_extractor": ("EncodecFeatures", {"encodec_model": "encodec_24khz", "bandwidths": list(BANDWIDTHS)}),
        "backbone": ("VocosBackbone", {"input_channels": 128, **RELEASED}),
        "head": ("ISTFTHead", {"dim": 384, "n_fft": 1280, "hop_length": 320, "padding": "same"}),
    }
    content = {name: {"class_path": f"vocos.{kind}", "init_args": sizes} for name, (kind, sizes) in parts.items()}
    (decoder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder / "codec", decoder, vocos


@pytest.mark.parametrize(("bandwidth_id", "bandwidth"), list(enumerate(BANDWIDTHS)))
def test_released_layout_equals_the_package(
    released: tuple[Path, Path, Vocos], bandwidth_id: int, bandwidth: float
) -> None:
    folder, decoder, package = released
    codec = Codec.load(config_of(folder, decoder, BANDWIDTHS[bandwidth], bandwidth=bandwidth), CPU)
    codes = torch.randint(1024, (2, 21, BANDWIDTHS[bandwidth]))
    features = package.codes_to_features(codes.permute(2, 0, 1))
    expected = package.decode(features, bandwidth_id=torch.tensor([bandwidth_id]))
    assert closest(codec.decode(codes), expected) < 1e-5


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (torch.Tensor.half, ""),
        (torch.Tensor.bfloat16, ""),
        (lambda weights: weights + weights.roll(1, 0) * 0.1, "not those of the codec"),
        (lambda weights: weights.half() * 1.1, "not those of the codec"),
        (lambda weights: weights[0, 0], "not those of the codec"),
        (lambda weights: weights[:, 0], "not those of the codec"),
        (lambda weights: weights[:-1], "not those of the codec"),
        (lambda weights: weights.long(), "not those of the codec"),
    ],
)
def test_codebooks_of_any_kind(
    released: tuple[Path, Path, Vocos], tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor], told: str
) -> None:
    folder, decoder, _ = released
    tensors = torch.load(decoder / "pytorch_model.bin")
    tensors["feature_extractor.codebook_weights"] = change(tensors["feature_extractor.codebook_weights"]).clone()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.yaml").symlink_to(decoder / "config.yaml")
    config = config_of(folder, tmp_path, 8, bandwidth=6.0)
    with pytest.raises(UserError, match=told) if told else nullcontext():
        Codec.load(config, CPU)


def test_a_number_of_codebooks_between_two_trained_ones_decodes_as_the_lower(
    released: tuple[Path, Path, Vocos],
) -> None:
    folder, decoder, _ = released
    codec = Codec.load(config_of(folder, decoder, 8, bandwidth=6.0), CPU)
    codes = torch.randint(1024, (1, 9, 8))
    assert torch.equal(codec.decode(codes[..., :3]), codec.decode(codes[..., :2]))
    assert not torch.equal(codec.decode(codes[..., :4]), codec.decode(codes[..., :2]))


TOO_FEW = "3 codebooks are to be decoded, but the decoder takes 8 or more"


def test_fewer_codebooks_than_it_was_trained_for_are_not_decoded(stack: Stack, tmp_path: Path) -> None:
    decoder = build_decoder(tmp_path / "vocos", CODEC, layers=1, quantizers=(8,))
    config = load_model_config(_with_decoder(stack, decoder, tmp_path))
    tokenizer = replace(stack.tokenizer(), codec=Codec.load(config, CPU))
    with pytest.raises(UserError, match=f"^encodec_cfg: decoder: {TOO_FEW}"):
        tokenizer.codec.decode(torch.zeros(1, 4, 3, dtype=torch.long))
    model = MusicLM(config, stack.stages(), tokenizer)
    with pytest.raises(UserError, match=f"^return_coarse_wave: {TOO_FEW}"):
        model.generate("a", config=GenerationConfig(return_coarse_wave=True))
    section = trainer_config(stage="coarse", use_preprocessed_data=True, save_reconstructed_wave=True)
    with pytest.warns(UserNotice, match=f"no waves: coarse_trainer_cfg: save_reconstructed_wave: {TOO_FEW}"):
        assert stage_tools(config, section, TokenizerPaths(None, None), CPU).codec is None
    fine = section.model_copy(update={"stage": "fine"})
    assert stage_tools(config, fine, TokenizerPaths(None, None), CPU).codec is not None
    evaluated = section.model_copy(update={"evaluate_every": 1})
    with pytest.raises(UserError, match=f"^coarse_trainer_cfg: evaluate_every: {TOO_FEW}"):
        stage_tools(config, evaluated, TokenizerPaths(stack.weights("clap_rvq"), None), CPU)


def test_a_decoder_of_another_codec_is_refused(released: tuple[Path, Path, Vocos], tmp_path: Path) -> None:
    _, decoder, _ = released
    other = build_codec(tmp_path / "other", REAL_SIZES, seed=1)
    with pytest.raises(UserError, match="its codebooks are not those of the codec"):
        Codec.load(config_of(other, decoder, 8, bandwidth=6.0), CPU)
    small = build_codec(tmp_path / "small")
    own = build_decoder(tmp_path / "own", REAL_SIZES)
    with pytest.raises(UserError, match="latent_dim 128, but the codec has 8"):
        Codec.load(config_of(small, own, 8, bandwidth=2.4, codebook_size=16), CPU)
    needs_all = build_decoder(tmp_path / "all", ENCODEC, quantizers=(8,))
    with pytest.raises(UserError, match="decodes 8 codebooks or more, but this config has 3"):
        Codec.load(config_of(small, needs_all, 3, bandwidth=0.9, codebook_size=16), CPU)


# 480 bytes for 10 ** 14 texts, and what is nested without aliases
ALIASES = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
NESTED = "[" * 20 + "x" + "]" * 20


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1, 2", "config.yaml"),
        ("just text", "config.yaml"),
        ("backbone: {}", "feature_extractor"),
        ("a: " + "[" * 3000, "config.yaml"),
        ("!!python/object/apply:os.system ['true']", "config.yaml"),
        (ALIASES, "config.yaml: an alias, *a0; write out"),
        ("a: " + "x" * (1 << 16), "config.yaml: larger than 64 KiB"),
        (f"{{feature_extractor: {NESTED}, backbone: {NESTED}, head: {NESTED}}}", "feature_extractor: "),
    ],
)
def test_a_config_that_is_no_vocos_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    codec = build_codec(tmp_path / "codec")
    (tmp_path / "vocos").mkdir()
    (tmp_path / "vocos/config.yaml").write_text(content)
    with pytest.raises(UserError, match="encodec_cfg: decoder: cannot load") as error:
        Codec.load(config_of(codec, tmp_path / "vocos", 8, bandwidth=2.4, codebook_size=16), CPU)
    assert words in str(error.value)
    assert len(str(error.value)) < 700
    assert "\n" not in str(error.value)


def test_context_of_a_decoder_is_all_that_its_sound_depends_on(tmp_path: Path) -> None:
    folder, frames = build_codec(tmp_path / "codec"), 60
    for head_hop in (320, 80):
        decoder = build_decoder(tmp_path / f"vocos{head_hop}", ENCODEC, head_hop=head_hop, n_fft=640)
        codec = Codec.load(config_of(folder, decoder, 8, bandwidth=2.4, codebook_size=16), CPU)
        codes = torch.randint(16, (1, frames, 8))
        context, begin = codec.context_frames, 30
        assert codec.lookahead_frames == context < begin
        part = codec.decode(codes[:, begin - context : begin + 1 + context])
        own = part[:, context * 320 : (context + 1) * 320]
        assert closest(own, codec.decode(codes)[:, begin * 320 : (begin + 1) * 320]) < 1e-5


@pytest.fixture(scope="module")
def with_decoder(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The small model's config with a Vocos in it, and the Vocos."""
    folder = tmp_path_factory.mktemp("with_decoder")
    decoder = build_decoder(folder / "vocos", CODEC, layers=1, head_hop=CODEC.hop // 2)
    return _with_decoder(stack, decoder, folder), decoder


def _with_decoder(stack: Stack, decoder: Path, folder: Path) -> Path:
    """Writes the small model's config with this decoder; returns its path."""
    content = json.loads(stack.model_config.read_text())
    for section in ("clap_rvq_cfg", "hubert_kmeans_cfg", "encodec_cfg"):
        content[section]["model_name"] = str(stack.folder / content[section]["model_name"])
    content["encodec_cfg"]["decoder"] = str(decoder)
    (folder / "model.json").write_text(json.dumps(content))
    return folder / "model.json"


def test_a_bundle_carries_its_decoder_and_streams_without_a_click(
    stack: Stack, with_decoder: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    parts = {kind: stack.weights(kind) for kind in (*STAGE_NAMES, "clap_rvq", "hubert_kmeans")}
    pack(with_decoder[0], parts, bundle)
    assert json.loads((bundle / "model_config.json").read_text())["encodec_cfg"]["decoder"] == "./decoder"
    model = MusicLM.from_pretrained(bundle)
    codec, decoded = model.tokenizer.codec, []
    decode = codec.decode

    def spy(codes: torch.Tensor) -> torch.Tensor:
        decoded.append(codes)
        return decode(codes)

    monkeypatch.setattr(codec, "decode", spy)
    chunks = [chunk for _, chunk in model.stream("a", config=GenerationConfig(duration=4.3, seed=3))]
    assert len(chunks) > 3
    ends = [min(12 * number, 66) for number in range(1, 7)]  # frames known when a chunk of 0.8 s is decoded
    whole = torch.zeros(1, 66, 8, dtype=torch.long)
    for end, codes in zip(ends, decoded[-len(ends) :], strict=True):
        whole[:, end - codes.shape[1] : end] = codes
    streamed = torch.cat(chunks, dim=1)
    assert streamed.shape == (1, round(4.3 * 24000))
    assert closest(streamed, decode(whole)[:, : streamed.shape[1]]) < 1e-5
