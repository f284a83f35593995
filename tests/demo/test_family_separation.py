"""Family separation: which instruments share codes with another family, and where their sentences go."""

import json

import pytest
import torch
from helpers import forks
from helpers.paths import DEMO, REPOSITORY

from demo.backbones import family_separation
from demo.backbones.family_separation import confused_instruments, separate_families
from demo.backbones.matching_losses import embed_sentences
from demo.corpus.instruments import INSTRUMENTS
from open_musiclm.config import load_model_config
from open_musiclm.tokenizers.clap_directory import ClapDirectory, ClapParts
from open_musiclm.tokenizers.rvq import ClapQuantizer

NAMED = {instrument.name: instrument for instrument in INSTRUMENTS}
PLACES = {name: place for place, name in enumerate(NAMED)}


def bundled_clap() -> ClapParts:
    return ClapDirectory(DEMO / "bundle/clap", "test").load()


def bundled_quantizer() -> ClapQuantizer:
    return ClapQuantizer.load(
        DEMO / "bundle", load_model_config(DEMO / "bundle/model_config.json"), torch.device("cpu")
    )


def confused(meanings: dict[str, dict[str, float]], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is confused where each instrument's sentences are a vector of their own, whose place is its code; those of
    `meanings` are sums of other instruments'."""

    def embed(_: object, sentences: list[str]) -> torch.Tensor:
        vectors = torch.zeros(len(sentences), len(PLACES))
        for vector, sentence in zip(vectors, sentences, strict=True):
            names = {name: own for own, instrument in NAMED.items() for name in instrument.names if name in sentence}
            name = names[max(names, key=len)]
            for other, weight in meanings.get(name, {name: 1.0}).items():
                vector[PLACES[other]] = weight
        return vectors

    quantizer = bundled_quantizer()
    monkeypatch.setattr(family_separation, "embed_sentences", embed)
    monkeypatch.setattr(quantizer, "encode", lambda embeddings: embeddings.argmax(dim=1, keepdim=True))
    return {one.name: other.name for one, other in confused_instruments(bundled_clap(), quantizer).items()}


def test_an_instrument_with_codes_of_another_family_goes_to_the_nearest_of_its_own(monkeypatch) -> None:
    meanings = {"tuba": {"acoustic guitar": 1.0, "trombone": 0.1}}
    assert confused(meanings, monkeypatch) == {"tuba": "trombone"}


def test_a_code_of_two_instruments_of_one_family_is_no_confusion(monkeypatch) -> None:
    assert confused({"tuba": {"trombone": 1.0}}, monkeypatch) == {}


def test_a_family_that_is_wholly_confused_is_left(monkeypatch) -> None:
    assert confused({"choir": {"piano": 1.0}}, monkeypatch) == {}  # the only voice


@pytest.mark.slow
def test_only_the_sentences_of_the_instrument_change() -> None:
    clap, lines = bundled_clap(), []
    texts = ["slow harp", "slow flute", "fast piano"]
    with torch.no_grad():
        before = embed_sentences(clap, texts)
    separate_families(clap, {NAMED["harp"]: NAMED["flute"]}, ["slow piano", "harp music"], 60, lines.append)
    with torch.no_grad():
        after = embed_sentences(clap, texts)
    assert float(after[0] @ before[1]) > 0.9 > float(before[0] @ before[1])
    assert all(float(after[place] @ before[place]) > 0.98 for place in (1, 2))
    assert [line.split(":")[0] for line in lines] == ["step 50", "step 60"]


def test_no_instrument_of_the_bundle_has_codes_of_another_family() -> None:
    assert confused_instruments(bundled_clap(), bundled_quantizer()) == {}


def test_the_script_writes_a_clap(tmp_path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "captions.jsonl").touch()
    done = forks.run([
        REPOSITORY / "demo/separate_families.py", DEMO / "bundle/clap", tmp_path / "clap", "--steps", 1,
        "--model_config", DEMO / "bundle/model_config.json", "--rvq_path", DEMO / "bundle",
        "--corpus", tmp_path / "corpus",
    ])  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"wrote {tmp_path / 'clap'}"
    written, bundled = (
        json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "clap", DEMO / "bundle/clap")
    )
    assert written["projection_dim"] == bundled["projection_dim"]
