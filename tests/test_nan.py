"""NaN, infinity and sets without variance in evaluation and atlas: the right result, or one clear line."""

import itertools
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers.evaluating import needs_extra, run, write_noises
from helpers.small_stack import CPU, Stack

from open_musiclm.analysis.atlas import analyze
from open_musiclm.analysis.embeddings import embed_sounds
from open_musiclm.analysis.loaded_models import load_models
from open_musiclm.analysis.modality_gap import cca, mean_shift, pls
from open_musiclm.analysis.options import AtlasOptions
from open_musiclm.analysis.probes import probe
from open_musiclm.analysis.projection import pca_map
from open_musiclm.audio import read_sound
from open_musiclm.errors import UserError
from open_musiclm.evaluation import distances
from open_musiclm.evaluation.cache import MeasureCache, content_key
from open_musiclm.evaluation.clips import find_clips
from open_musiclm.evaluation.distances import Resampling
from open_musiclm.evaluation.embeddings import ClapMeasure
from open_musiclm.evaluation.evaluate import evaluate
from open_musiclm.evaluation.figures import Figure, Metric
from open_musiclm.evaluation.measured_set import measure_set
from open_musiclm.evaluation.memorization import MemorizationOptions, PromptLength
from open_musiclm.evaluation.memorization_report import memorization_card, write_report
from open_musiclm.evaluation.options import EvaluationOptions
from open_musiclm.evaluation.sound_measures import LevelMeasure
from open_musiclm.evaluation.vectors import ClipVectors
from open_musiclm.files import write_json
from open_musiclm.metrics.intervals import Estimate
from open_musiclm.metrics.transport import centroid_distances, matching_cost
from open_musiclm.tokenizers.clap import Clap


def strict(path: Path) -> Any:
    """The content of a JSON file that knows nothing of NaN and Infinity."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{path} holds {token}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_json_has_null_in_place_of_what_is_no_number(tmp_path: Path) -> None:
    content = {"a": math.nan, "b": [1.5, -math.inf, {"c": (math.inf, 2)}], "d": np.float64("nan"), "e": "NaN"}
    write_json(tmp_path / "a.json", content)
    assert strict(tmp_path / "a.json") == {"a": None, "b": [1.5, None, {"c": [None, 2]}], "d": None, "e": "NaN"}


def test_a_figure_without_a_number_says_so() -> None:
    kind = Metric("key", "title", "lower", "its convention")
    nothing = kind.figure(Estimate(math.nan, 0.0, 1.0), 4)
    assert (nothing.value, nothing.low, nothing.high) == (None, None, None)
    assert nothing.note == "none: the result is nan, which is no number"
    half = kind.figure(Estimate(1.0, 0.5, math.inf), 4)
    assert (half.value, half.low, half.high, half.note) == (1.0, None, None, "its convention")


SETS = {
    "equal": lambda n: torch.ones(n, 8),
    "zero": lambda n: torch.zeros(n, 8),
    "two points": lambda n: torch.eye(8)[torch.arange(n) % 2],
    "random": lambda n: torch.randn(n, 8, generator=torch.Generator().manual_seed(n)),
    "huge": lambda n: 1e30 * torch.randn(n, 8, generator=torch.Generator().manual_seed(n)),
}


@pytest.mark.parametrize("left", SETS)
@pytest.mark.parametrize("right", SETS)
def test_distances_of_sets_without_variance_are_numbers_or_say_why(left: str, right: str) -> None:
    resampling = Resampling(0, 2)
    for counts in ((1, 1), (2, 2), (1, 12), (12, 12)):
        evaluated, reference = (
            ClipVectors(SETS[name](count), torch.arange(count))
            for name, count in zip((left, right), counts, strict=True)
        )
        songs = ClipVectors(evaluated.vectors, evaluated.clips // 2)
        figures: list[Figure] = [
            distances.frechet_figure(distances.FAD, evaluated, reference, resampling),
            distances.extrapolated_figure(evaluated, reference, resampling)[0],
            distances.per_song_figure(songs, reference, resampling)[0],
            *distances.kernel_figures(evaluated, reference, resampling),
            *distances.density_figures(evaluated, reference, resampling)[0],
            distances.divergence_figure(Metric("mad", "MAD", "lower", ""), evaluated, reference, resampling),
        ]
        for figure in figures:
            numbers = (figure.value, figure.low, figure.high)
            assert all(number is None or math.isfinite(number) for number in numbers), (figure, counts)
            assert figure.value is not None or figure.note.startswith("none: "), figure


def test_few_clips_of_one_window_have_a_kernel_distance() -> None:
    """Some resamplings draw one clip again and again, which has no pair."""
    evaluated, reference = (ClipVectors(torch.randn(count, 8), torch.arange(count)) for count in (2, 40))
    for figure in distances.kernel_figures(evaluated, reference, Resampling(0, 200)):
        assert figure.value is not None
        assert figure.low is not None


@pytest.mark.parametrize(
    ("texts", "sounds"), list(itertools.product(["equal", "zero", "two points", "random"], repeat=2))
)
def test_corrections_of_texts_without_variance_are_numbers(texts: str, sounds: str) -> None:
    for count in (1, 2, 12):
        given = SETS[texts](count).numpy(), SETS[sounds](count).numpy()
        for correction in (mean_shift(*given), pls(*given, 3), cca(*given, 3)):
            corrected = correction(given[0])
            assert np.isfinite(corrected).all()
            assert set(np.linalg.norm(corrected, axis=1).round(4)) <= {0.0, 1.0}


@pytest.mark.parametrize("kind", ["equal", "zero", "two points", "random"])
def test_probes_and_maps_without_variance(kind: str) -> None:
    vectors = SETS[kind](20).numpy()
    for values in (np.arange(20.0), np.arange(20) * 1e300, np.arange(20) * 1e-300, np.array(["a", "b"] * 10)):
        assert np.isfinite(probe(vectors, values).scores).all()
    for count in (1, 5, 20):
        points, share = pca_map(vectors[:count])
        assert np.isfinite(points).all()
        assert 0 <= share <= 1


@needs_extra
def test_equal_and_overly_loud_sounds_have_a_strict_card(tmp_path: Path, stack: Stack) -> None:
    """Digital silence, and floats at the edge of what float32 holds, which reading refuses."""
    silent, reference = tmp_path / "silent", write_noises(tmp_path / "reference", 7, 0.5, seed=1)
    silent.mkdir()
    for number in range(2):
        soundfile.write(silent / f"{number}.wav", np.zeros(8000), 16000)
    soundfile.write(silent / "loud.wav", np.full(8000, 3e38, np.float32), 16000, "FLOAT")
    words = ["--checkpoint_dir", stack.folder, "--bootstrap", 2, "--cache_folder", tmp_path / "cache"]
    words += ["--metrics", "fad", "kad", "density", "prompts", "mert", "levels"]
    run(silent, "--reference", reference, *words, "--results_folder", tmp_path / "results")
    card = strict(tmp_path / "results/card.json")["sets"]["silent"]
    assert len(card["left_out"]) == 1
    assert card["figures"]["loudness"]["note"] == "none: all clips are silent"
    assert card["figures"]["kad_kadtk"]["note"] == "none: all vectors of the set are the same"
    assert all(
        figure["value"] is not None or figure["note"].startswith("none: ") for figure in card["figures"].values()
    )
    for line in (tmp_path / "results/clips.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_kept_embeddings_that_are_no_numbers_are_computed_again(tmp_path: Path, stack: Stack) -> None:
    folder = write_noises(tmp_path / "sounds", 1, 0.5, seed=2)
    measure = ClapMeasure(Clap.load(stack.config, CPU), 2.0, "small")
    cache, key = MeasureCache(tmp_path / "cache"), content_key(folder / "0.wav", None)
    (measured,) = measure.measure([read_sound(folder / "0.wav")])
    cache.keep(measure.identity, key, {**measured, "windows": measured["windows"] * math.inf})
    found = measure_set(folder, find_clips(folder), {"clap": measure}, cache).get("clap", "windows")
    assert found is not None
    torch.testing.assert_close(found.vectors, measured["windows"])
    kept = cache.find(measure.identity, key)
    assert kept is not None
    torch.testing.assert_close(kept["windows"], measured["windows"])


@needs_extra
@pytest.mark.parametrize("tower", ["audio", "text"])
def test_a_clap_whose_weights_make_no_numbers_is_one_line(tower: str, tmp_path: Path, stack: Stack) -> None:
    """Finite weights, so that loading has nothing to say, whose products are not."""
    folder = write_noises(tmp_path / "sounds", 2, 0.5, seed=3)
    (folder / "0.json").write_text(json.dumps({"prompt": "slow piano"}))
    clap = ClapMeasure(Clap.load(stack.config, CPU), 2.0, "small")
    projection = getattr(clap.clap.model, f"{tower}_projection")
    torch.nn.init.constant_(projection.linear2.weight, 3e38)
    reason = {"audio": r"0\.wav: what small makes of it is not finite; are the weights damaged",
              "text": r"prompt 'slow piano': its CLAP embedding is not finite; are CLAP's weights damaged"}  # fmt: skip
    places = (tmp_path / "results", tmp_path / "cache")
    options = EvaluationOptions([folder], folder, ["prompts"], *places, Resampling(0, 2))
    with pytest.raises(UserError, match=reason[tower]):
        evaluate({"clap": clap, "levels": LevelMeasure()}, options)


def test_an_atlas_of_equal_sounds_and_captions(tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions without a letter are none; a wave of nothing but one sample is a sound."""
    monkeypatch.setitem(sys.modules, "umap", None)  # its import takes long
    models = load_models(str(stack.folder), None, None, "cpu", with_mert=True)
    lines = []
    for number in range(12):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * np.sin(np.arange(4000) / 9), 16000)
        texts = [("", "  "), ("one",), ("one", "")][min(number, 2)]
        lines.append({"file": f"{number}.wav", "captions": texts, "kind": "ab"[number % 2], "pair": "xy"[number // 6]})
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    analyze(models, AtlasOptions(tmp_path, tmp_path / "results"))
    card = strict(tmp_path / "results/atlas.json")
    assert card["captions"] == 1
    tables = {table["title"]: table["lines"] for table in card["tables"]}
    assert [line["recall at 10"]["value"] for line in tables["Retrieval"]][:2] == [1.0, 1.0]
    assert tables["CLAP tokens"][0]["energy left, sounds"] is None
    assert card["skipped"]["corrections"].startswith("almost all captions occur in both halves")
    page = (tmp_path / "results/atlas.html").read_text()
    data = re.search(r'<script id="data".*?>(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert len(json.loads(data[1], parse_constant=pytest.fail)["sounds"]) == 12


def test_kept_embeddings_of_an_atlas_that_are_no_numbers(tmp_path: Path, stack: Stack) -> None:
    path = write_noises(tmp_path / "sounds", 1, 0.5, seed=2) / "0.wav"
    clap = load_models(str(stack.folder), None, None, "cpu", with_mert=False).clap
    first = embed_sounds([path], clap, None, tmp_path / "kept")
    (kept,) = (tmp_path / "kept").rglob("*.safetensors")
    cache, identity = MeasureCache(tmp_path / "kept"), kept.parent.parent.name
    cache.keep(identity, kept.stem, {"vectors": torch.full((1, first.clap.shape[1]), math.nan)})
    again = embed_sounds([path], clap, None, tmp_path / "kept")
    np.testing.assert_array_equal(again.clap, first.clap)


def test_memorization_of_equal_tokens_and_of_huge_centroids(tmp_path: Path) -> None:
    distances_of_tokens = centroid_distances(1e38 * torch.eye(3))
    assert np.isfinite(distances_of_tokens).all()
    cost = matching_cost(torch.tensor([0, 1]), torch.tensor([1, 2]), distances_of_tokens)
    assert cost == pytest.approx(math.sqrt(2) / 2 * 1e38)
    same = PromptLength(0, torch.zeros(3).double(), torch.zeros(6).double(), torch.ones(3).double(), 1.0)
    card = memorization_card({"training": [same]}, MemorizationOptions([0], 3, 0.0, 2, 0), {})
    write_report(tmp_path, card, {"training": [same]})
    assert strict(tmp_path / "memorization.json")["stores"]["training"][0]["approximate"] == [
        1,
        1,
        1,
    ]  # exact matches are approximate ones
