"""Wrong and hostile directories of CLAP, MERT and EnCodec: one line that names what is wrong, at once, in little
memory, and nothing in them is imported or run."""

import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.golden_cases import CPU
from helpers.small_backbones import build_codec, build_mert, model_config
from helpers.small_clap import build_clap
from safetensors.torch import load_file, save_file

from open_musiclm.config import ClapRvqConfig, EncodecConfig, GlobalConfig, HubertKmeansConfig
from open_musiclm.errors import UserError
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.codec import Codec
from open_musiclm.tokenizers.mert import Mert

_LARGE = 1 << 42
_DEEP = "[" * 100_000 + "]" * 100_000
_WITNESS = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"


def use_clap(folder: Path) -> None:
    clap = Clap.load(model_config(ClapRvqConfig(model_name=str(folder))), CPU)
    assert clap.embed_text(["fast violin"]).isfinite().all()
    assert clap.embed_audio(torch.zeros(1, clap.sample_hz)).ndim == 2


def use_mert(folder: Path) -> None:
    mert = Mert.load(model_config(HubertKmeansConfig(model_name=str(folder), embed_layer=2)), CPU)
    assert mert.features(torch.zeros(1, 3200)).ndim == 3


def use_codec(folder: Path) -> None:
    sections = EncodecConfig(model_name=str(folder), bandwidth=2.4, codebook_size=16), GlobalConfig()
    codec = Codec.load(model_config(*sections), CPU)
    assert codec.decode(codec.encode(torch.zeros(1, 3200))).shape == (1, 3200)


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], None]]] = {
    "clap": (build_clap, use_clap),
    "mert": (build_mert, use_mert),
    "encodec": (build_codec, use_codec),
}


@pytest.fixture(scope="module", autouse=True)
def _little_memory(whole: Path) -> Iterator[None]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _kilobytes("VmRSS")
    yield
    assert _kilobytes("VmHWM") - before < 1 << 20


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of each kind, as it should be."""
    folder = tmp_path_factory.mktemp("whole")
    for kind, (build, use) in KINDS.items():
        use(build(folder / kind))
    return folder


def copied(whole: Path, kind: str, to: Path) -> Path:
    """A directory that may be spoiled, of hard links: a file is replaced and not written to."""
    to.mkdir(parents=True)
    for file in (whole / kind).iterdir():
        os.link(file, to / file.name)
    return to


def replace(path: Path, content: str | bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def edited(**keys: Any) -> Callable[[Path], None]:
    """Sets keys of a JSON file; two underscores lead into a section."""

    def edit(path: Path) -> None:
        content = json.loads(path.read_text())
        for key, value in keys.items():
            *sections, last = key.split("__")
            place = content
            for section in sections:
                place = place[section]
            place[last] = value
        replace(path, json.dumps(content))

    return edit


def text(content: str | bytes) -> Callable[[Path], None]:
    return lambda path: replace(path, content)


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    """Changes the tensors of a safetensors file."""

    def edit(path: Path) -> None:
        content = {name: tensor.clone() for name, tensor in load_file(path).items()}
        path.unlink()
        save_file(change(content), path, {"format": "pt"})

    return edit


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def index(weight_map: object) -> Callable[[Path], None]:
    """An index in place of the weights."""

    def edit(path: Path) -> None:
        path.rename(path.with_name("model-00001-of-00001.safetensors"))
        path.with_name("model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return edit


def header(content: bytes) -> Callable[[Path], None]:
    return text(len(content).to_bytes(8, "little") + content)


CLAP, FRONT, WEIGHTS, VOCABULARY = "config.json", "preprocessor_config.json", "model.safetensors", "vocab.json"
JSON_FAULTS: dict[str, Callable[[Path], None]] = {
    "empty": text(""),
    "null": text("null"),
    "a list": text("[1, 2]"),
    "a text": text('"clap"'),
    "nested deeply": text('{"a": ' + _DEEP + "}"),
    "a key twice": text('{"model_type": "clap", "model_type": "clap"}'),
    "NaN": text('{"a": NaN}'),
    "5,000 digits": text('{"a": ' + "9" * 5000 + "}"),
    "latin-1": text('{"a": "é"}'.encode("latin-1")),
    "40 MB": text('{"a": "' + "a" * 40_000_000 + '"}'),
    "a pipe": fifo,
    "a folder": folder,
}
FAULTS: list[tuple[str, str, str, Callable[[Path], None]]] = [
    *(("clap", CLAP, f"config.json: {name}", fault) for name, fault in JSON_FAULTS.items()),
    *(("clap", FRONT, f"preprocessor_config.json: {name}", JSON_FAULTS[name]) for name in ("null", "a list", "a pipe")),
    *(("clap", VOCABULARY, f"vocab.json: {name}", JSON_FAULTS[name]) for name in ("null", "empty", "nested deeply")),
    *(("mert", CLAP, f"config.json: {name}", fault) for name, fault in JSON_FAULTS.items()),
    *(("encodec", CLAP, f"config.json: {name}", fault) for name, fault in JSON_FAULTS.items()),
    ("clap", CLAP, "heads that do not divide the width", edited(text_config__num_attention_heads=3)),
    ("clap", CLAP, "no heads", edited(text_config__num_attention_heads=0)),
    ("clap", CLAP, "audio heads that do not divide", edited(audio_config__num_attention_heads=[3, 3, 3, 3])),
    ("clap", CLAP, "fewer heads than depths", edited(audio_config__num_attention_heads=[1, 2])),
    ("clap", CLAP, "a number for heads", edited(audio_config__num_attention_heads=4)),
    ("clap", CLAP, "sections of null", edited(text_config=None)),
    ("clap", CLAP, "a list for a section", edited(audio_config=[1])),
    ("clap", CLAP, "an activation nobody has", edited(text_config__hidden_act="xielu")),
    ("clap", CLAP, "a negative width", edited(text_config__hidden_size=-16)),
    ("clap", CLAP, "a width of 4 TiB", edited(text_config__hidden_size=_LARGE)),
    ("clap", CLAP, "a width of a million", edited(text_config__intermediate_size=1 << 20)),
    ("clap", CLAP, "a vocabulary of a million", edited(text_config__vocab_size=1 << 20)),
    ("clap", CLAP, "a million layers", edited(text_config__num_hidden_layers=1_000_000)),
    ("clap", CLAP, "a hundred layers", edited(text_config__num_hidden_layers=100)),
    ("clap", CLAP, "depths of a million", edited(audio_config__depths=[1_000_000, 1, 1, 1])),
    ("clap", CLAP, "depths of null", edited(audio_config__depths=None)),
    ("clap", CLAP, "few positions", edited(text_config__max_position_embeddings=20)),
    ("clap", CLAP, "a window of 0", edited(audio_config__window_size=0)),
    ("clap", CLAP, "another window", edited(audio_config__window_size=7)),
    ("clap", CLAP, "a small picture", edited(audio_config__spec_size=32)),
    ("clap", CLAP, "a picture of 4 TiB", edited(audio_config__spec_size=1 << 20)),
    ("clap", CLAP, "a patch stride of 0", edited(audio_config__patch_stride=[0, 0])),
    ("clap", CLAP, "another patch stride", edited(audio_config__patch_stride=[3, 5])),
    ("clap", CLAP, "another patch size", edited(audio_config__patch_size=5)),
    ("clap", CLAP, "fusion of another kind", edited(audio_config__fusion_type="channel_map")),
    ("clap", CLAP, "an epsilon in words", edited(text_config__layer_norm_eps="small")),
    ("clap", CLAP, "an mlp_ratio of infinity", text('{"model_type": "clap", "audio_config": {"mlp_ratio": 1e999}}')),
    ("clap", CLAP, "a padding id beyond the vocabulary", edited(text_config__pad_token_id=5000)),
    ("clap", CLAP, "a projection of another width", edited(projection_dim=17)),
    ("clap", CLAP, "another model type", edited(model_type=["clap"])),
    ("clap", FRONT, "an FFT of 4 TiB", edited(fft_window_size=_LARGE)),
    ("clap", FRONT, "an FFT of 0", edited(fft_window_size=0)),
    ("clap", FRONT, "a hop of 0", edited(hop_length=0)),
    ("clap", FRONT, "a hop of 1", edited(hop_length=1)),
    ("clap", FRONT, "a million mels", edited(feature_size=1_000_000)),
    ("clap", FRONT, "other mels", edited(feature_size=32)),
    ("clap", FRONT, "a length of a year", edited(max_length_s=31_536_000)),
    ("clap", FRONT, "a length in words", edited(max_length_s="ten")),
    ("clap", FRONT, "a rate of null", edited(sampling_rate=None)),
    ("clap", FRONT, "frequencies the other way round", edited(frequency_min=14000, frequency_max=50)),
    ("clap", FRONT, "frequencies beyond the rate", edited(frequency_max=48000)),
    ("clap", FRONT, "another padding", edited(padding="repeat")),
    ("clap", FRONT, "a truncation as a list", edited(truncation=["fusion"])),
    ("clap", FRONT, "another front end", edited(feature_extractor_type="Wav2Vec2FeatureExtractor")),
    ("clap", VOCABULARY, "no special tokens", edited(**{"<pad>": 0})),
    ("clap", VOCABULARY, "ids as texts", text(json.dumps({"<s>": "0", "<pad>": "1"}))),
    ("clap", VOCABULARY, "ids as lists", text(json.dumps({"<s>": [0], "<pad>": [1]}))),
    ("clap", VOCABULARY, "a huge id", edited(violin=_LARGE)),
    ("clap", "merges.txt", "merges that it does not have", text("#version: 0.2\nq q\nqq qq\n")),
    ("clap", "merges.txt", "one word a line", text("violin\n")),
    ("clap", "merges.txt", "merges of bytes", text(b"\xff\xfe\x00")),
    ("clap", "tokenizer.json", "a tokenizer without a model", text("{}")),
    ("clap", "tokenizer.json", "a tokenizer of null", text('{"model": null}')),
    ("clap", "tokenizer.json", "a vocabulary as a list", text('{"model": {"vocab": ["a"], "merges": []}}')),
    ("clap", "tokenizer.json", "merges of numbers", text('{"model": {"vocab": {"a": 0}, "merges": [1]}}')),
    ("mert", CLAP, "heads that do not divide the width", edited(num_attention_heads=3)),
    ("mert", CLAP, "a width of 4 TiB", edited(hidden_size=_LARGE)),
    ("mert", CLAP, "a width of a million", edited(hidden_size=1 << 20)),
    ("mert", CLAP, "a million layers", edited(num_hidden_layers=1_000_000)),
    ("mert", CLAP, "more layers than there are", edited(num_hidden_layers=9)),
    ("mert", CLAP, "strides of 0", edited(conv_stride=[0] * 7)),
    ("mert", CLAP, "other strides", edited(conv_stride=[5, 2, 2, 2, 2, 2, 4])),
    ("mert", CLAP, "huge strides", edited(conv_stride=[_LARGE] * 7)),
    ("mert", CLAP, "fewer strides", edited(conv_stride=[5, 2])),
    ("mert", CLAP, "strides of null", edited(conv_stride=None)),
    ("mert", CLAP, "an object for kernels", edited(conv_kernel={"a": 1})),
    ("mert", CLAP, "other kernels", edited(conv_kernel=[9, 3, 3, 3, 3, 2, 2])),
    ("mert", CLAP, "groups that do not divide", edited(num_conv_pos_embedding_groups=3)),
    ("mert", CLAP, "another norm", edited(feat_extract_norm="batch")),
    ("mert", CLAP, "an activation nobody has", edited(hidden_act="open('/etc/passwd')")),
    ("mert", CLAP, "a truth in words", edited(do_stable_layer_norm="yes")),
    ("mert", CLAP, "relaxation in words", edited(attention_relax="32")),
    ("mert", CLAP, "a rate as a list", edited(sample_rate=[16000])),
    ("mert", CLAP, "another model type", edited(model_type="llama")),
    ("encodec", CLAP, "codebooks of 4 TiB", edited(bins=_LARGE)),
    ("encodec", CLAP, "larger codebooks", edited(bins=1 << 16)),
    ("encodec", CLAP, "a million codebooks", edited(n_q=1_000_000)),
    ("encodec", CLAP, "a hundred codebooks", edited(n_q=100)),
    ("encodec", CLAP, "a width of 4 TiB", edited(dimension=_LARGE)),
    ("encodec", CLAP, "another width", edited(dimension=1 << 16)),
    ("encodec", CLAP, "a million filters", edited(n_filters=1 << 16)),
    ("encodec", CLAP, "ratios of 0", edited(ratios=[0, 5, 4, 2])),
    ("encodec", CLAP, "no ratios", edited(ratios=[])),
    ("encodec", CLAP, "a thousand ratios", edited(ratios=[1] * 1000)),
    ("encodec", CLAP, "ratios as an object", edited(ratios={"a": 1})),
    ("encodec", CLAP, "a rate of 0", edited(sample_hz=0)),
    ("encodec", CLAP, "a dilation of a billion", edited(dilation_base=10**9)),
    ("encodec", CLAP, "a compression to nothing", edited(compress=1000)),
    ("encodec", CLAP, "a hundred LSTMs", edited(lstm=100)),
    ("encodec", CLAP, "bandwidths in words", edited(target_bandwidths=["all"])),
    *(
        (kind, WEIGHTS, f"weights: {name}", fault)
        for kind in KINDS
        for name, fault in {
            "empty": text(b""),
            "a long header": text((1 << 60).to_bytes(8, "little") + b"{}"),
            "no JSON": header(b"{" * 100),
            "nested deeply": header(b'{"a": ' + _DEEP.encode() + b"}"),
            "offsets beyond the file": header(b'{"a":{"dtype":"F32","shape":[1048576],"data_offsets":[0,4194304]}}'),
            "no tensors": header(b"{}"),
            "another type": tensors(lambda found: {name: tensor.to(torch.int8) for name, tensor in found.items()}),
            "one tensor less": tensors(lambda found: {name: found[name] for name in sorted(found)[1:]}),
            "another shape": tensors(lambda found: found | {min(found): torch.zeros(3, 3, 3, 3)}),
            "a pipe": fifo,
            "a folder": folder,
        }.items()
    ),
    ("mert", WEIGHTS, "an index that points elsewhere", index({"a": "../../secret.safetensors"})),
    ("mert", WEIGHTS, "an index that points to the root", index({"a": "/etc/passwd"})),
    ("mert", WEIGHTS, "an index that points to a config", index({"a": "config.json"})),
    ("mert", WEIGHTS, "an index of what is not there", index({"a": "model-00002-of-00002.safetensors"})),
    ("mert", WEIGHTS, "an index of numbers", index({"a": 1})),
    ("mert", WEIGHTS, "an index of lists", index({"a": [1]})),
    ("mert", WEIGHTS, "an index as a list", index(["a"])),
    ("mert", WEIGHTS, "an index of nothing", index(None)),
]


@pytest.mark.parametrize(("kind", "file", "fault", "spoil"), FAULTS, ids=[f"{row[0]}, {row[2]}" for row in FAULTS])
def test_one_line_that_names_the_directory(
    whole: Path, tmp_path: Path, kind: str, file: str, fault: str, spoil: Callable[[Path], None]
) -> None:
    directory = copied(whole, kind, tmp_path / kind)
    spoil(directory / file)
    with pytest.raises(UserError) as error:
        KINDS[kind][1](directory)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 1200
    assert str(directory) in message or "encodec_cfg" in message


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every container of a JSON value with each of its keys."""
    keys: list[Any] = []
    if isinstance(content, dict | list):
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    return [(content, key) for key in keys] + [place for key in keys for place in _places(content[key])]


HOSTILE = [None, True, False, 0, 1, 2, 3, 7, -1, 64, 1000, 1 << 20, 1 << 31, 1 << 63, 1 << 80, 0.5, -1.5, 1e-45, 1e308]
HOSTILE += ["", "gelu", "a\nb", "x" * 5000, [], [1], [0], [1] * 7, [2] * 1000, {}, {"a": 1}, [[1]], "\x00", "../.."]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_random_changes_of_json(whole: Path, tmp_path: Path, kind: str, seed: int) -> None:
    """Forty changes each: it is refused with one line, or works."""
    rng = random.Random(f"{kind} {seed}")
    names = sorted(file.name for file in (whole / kind).glob("*config.json"))
    refused: list[str] = []
    for number in range(40):
        directory = copied(whole, kind, tmp_path / str(number))
        path = directory / rng.choice(names)
        content = json.loads(path.read_text())
        for _ in range(rng.choice([1, 1, 1, 2])):
            container, key = rng.choice(_places(content))
            container[key] = rng.choice(HOSTILE)
        replace(path, json.dumps(content))
        try:
            KINDS[kind][1](directory)
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 5
    assert not [message for message in refused if "\n" in message or len(message) > 1200]


@pytest.mark.parametrize("kind", ["clap", "mert"])
def test_nothing_that_a_config_names_is_imported(whole: Path, tmp_path: Path, kind: str) -> None:
    directory = copied(whole, kind, tmp_path / kind)
    (directory / "own.py").write_text(_WITNESS)
    names = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoTokenizer": ["own.A", "own.B"]}
    keys = {
        "auto_map": names,
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
        "attn_implementation": "kernels-community/flash-attn",
        "_attn_implementation": "flash_attention_2",
        "_attn_implementation_internal": "kernels-community/flash-attn",
        "use_kernels": True,
        "torch_dtype": "float64",
        "dtype": "open('x')",
        "transformers_weights": "../secret.safetensors",
        "base_model_tp_plan": {"a": "colwise"},
        "device_map": "auto",
    }
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if (directory / name).exists():
            edited(**keys)(directory / name)
    (directory / "tokenizer_config.json").write_text(json.dumps(keys | {"tokenizer_class": "Own"}))
    before = set(sys.modules)
    KINDS[kind][1](directory)
    assert not (directory / "ran").exists()
    assert not {name for name in set(sys.modules) - before if name.startswith(("bitsandbytes", "kernels", "flash"))}


def test_shards_by_an_index_are_read(whole: Path, tmp_path: Path) -> None:
    directory = copied(whole, "mert", tmp_path / "mert")
    content = load_file(directory / WEIGHTS)
    (directory / WEIGHTS).unlink()
    names = sorted(content)
    files = {name: f"model-{1 + number % 2:05}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: content[name] for name in names if files[name] == file}, directory / file)
    (directory / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    use_mert(directory)
    (directory / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"there is no model-00002-of-00002\.safetensors"):
        use_mert(directory)


@pytest.mark.parametrize("prefix", ["module.", "hubert.", "_orig_mod.module."])
def test_a_mert_under_other_names(whole: Path, tmp_path: Path, prefix: str) -> None:
    directory = copied(whole, "mert", tmp_path / "mert")
    content = load_file(directory / WEIGHTS)
    (directory / WEIGHTS).unlink()
    torch.save(
        {"state_dict": {prefix + name: tensor for name, tensor in content.items()}}, directory / "pytorch_model.bin"
    )
    use_mert(directory)
