"""Family separation: which instruments share codes with another family, and where their sentences go."""

import json

import pytest
import torch
from helpers import forks
from helpers.paths import DEMO, REPOSITORY

from demo.backbones import family_separation
from demo.backbones.family_separation import confused_instruments, separate_families
from demo.backbones.matching_losses import embed_sentences
from demo.corpus.excerpt import TEMPI
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


def confused(
    meanings: dict[str, dict[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    word: str = "",
    not_played: tuple[str, ...] = (),
) -> dict[tuple[str, str], str]:
    """What is confused where each instrument's sentences are a vector of their own, whose place is its code; those of
    `meanings` in which `word` occurs are sums of other instruments'."""

    def embed(_: object, sentences: list[str]) -> torch.Tensor:
        vectors = torch.zeros(len(sentences), len(PLACES))
        for vector, sentence in zip(vectors, sentences, strict=True):
            names = {name: usual for usual, known in NAMED.items() for name in known.names if name in sentence}
            name = names[max(names, key=len)]
            own = meanings.get(name, {}) if word in sentence.split() or not word else {}
            for other, weight in (own or {name: 1.0}).items():
                vector[PLACES[other]] = weight
        return vectors

    quantizer = bundled_quantizer()
    monkeypatch.setattr(family_separation, "embed_sentences", embed)
    monkeypatch.setattr(quantizer, "encode", lambda embeddings: embeddings.argmax(dim=1, keepdim=True))
    found = confused_instruments(bundled_clap(), quantizer, [NAMED[name] for name in not_played])
    return {(one.name, tempo): other.name for (one, tempo), other in found.items()}


def test_an_instrument_with_codes_of_another_family_goes_to_the_nearest_of_its_own(monkeypatch) -> None:
    meanings = {"tuba": {"acoustic guitar": 1.0, "trombone": 0.1}}
    assert confused(meanings, monkeypatch) == {("tuba", tempo): "trombone" for tempo in TEMPI}


def test_an_instrument_may_be_confused_at_one_tempo(monkeypatch) -> None:
    """Once a fast cello had the code of a synthesizer, a slow one its own."""
    monkeypatch.setattr(
        family_separation, "tempo_sentences", lambda instrument, _: [f"{t} {instrument.name}" for t in TEMPI]
    )
    meanings = {"cello": {"sawtooth synthesizer": 1.0, "viola": 0.1}}
    assert confused(meanings, monkeypatch, word="fast") == {("cello", "fast"): "viola"}


def test_an_instrument_that_is_not_played_goes_to_another_although_its_codes_are_its_own(monkeypatch) -> None:
    found = confused({"bassoon": {"bassoon": 1.0, "clarinet": 0.1}}, monkeypatch, not_played=("bassoon",))
    assert found == {("bassoon", tempo): "clarinet" for tempo in TEMPI}


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
    substitutes = {(NAMED["harp"], tempo): NAMED["flute"] for tempo in TEMPI}
    separate_families(clap, substitutes, ["slow piano", "harp music"], 60, lines.append)
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
