"""Evaluation as its script runs it, on noises and a small model: figures, card, page and cache."""

import json
import math
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.evaluating import clap_measure, needs_extra, run, write_noises
from helpers.small_stack import CPU, Stack

from open_musiclm.audio import Sound, resampled
from open_musiclm.errors import UserError, UserNotice
from open_musiclm.evaluation import embeddings
from open_musiclm.evaluation.cache import MeasureCache, content_key
from open_musiclm.evaluation.clips import find_clips
from open_musiclm.evaluation.distances import Resampling
from open_musiclm.evaluation.embeddings import ClapMeasure, MertMeasure
from open_musiclm.evaluation.measured_set import measure_set
from open_musiclm.evaluation.passt import PasstMeasure, divergence_figures
from open_musiclm.evaluation.sound_measures import LevelMeasure
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.mert import Mert


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """Four generated clips with prompts, and six reference clips with captions, of which one file is missing."""
    generated = write_noises(tmp_path / "generated", 4, 2.5, seed=1)
    for number in range(4):
        prompt = "slow piano at 60 bpm" if number % 2 else "fast violin tune"
        (generated / f"{number}.json").write_text(json.dumps({"prompt": prompt, "seed": 0}))
    reference = write_noises(tmp_path / "reference", 6, 2.5, seed=2, level=0.3)
    lines = [{"file": f"{number}.wav", "caption": f"noise number {number}", "bpm": 90} for number in range(7)]
    (reference / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (reference / "broken.wav").write_bytes(b"no sound at all")
    return generated, reference


def direct_windows(clap: Clap, path: Path) -> torch.Tensor:
    """fadtk's windows, written out: from every second on ten seconds, filled up with zeros."""
    samples, hz = soundfile.read(path, dtype="float32")
    wave = resampled(Sound(torch.from_numpy(samples), hz), 48000)
    windows = [wave[start : start + 480000] for start in range(0, len(wave), 48000)]
    padded = [torch.nn.functional.pad(window, (0, 480000 - len(window))) for window in windows]
    return clap.embed_audio(torch.stack(padded))


@needs_extra
def test_the_script_writes_a_card_a_page_and_a_line_for_each_clip(
    sets: tuple[Path, Path],
    tmp_path: Path,
    stack: Stack,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # librosa compiles itself for ten seconds when it is first asked
    monkeypatch.setattr("librosa.beat.beat_track", lambda y, sr: (np.array([61.0]), None))
    generated, reference = sets
    words = ["--reference", reference, "--checkpoint_dir", stack.folder, "--bootstrap", 3]
    words += ["--cache_folder", tmp_path / "cache", "--results_folder", tmp_path / "results"]
    with pytest.warns(UserNotice, match=r"1 of 7 captions name files that are not there, such as 6\.wav"):
        run(generated, *words)
    output = capsys.readouterr()
    assert "generated, 4 clips:" in output.out
    assert "left out" in output.err
    card = json.loads((tmp_path / "results/card.json").read_text())
    figures = card["sets"]["generated"]["figures"]
    expected = {"fad", "fad_inf", "fad_per_song", "kad", "kad_kadtk", "density", "coverage", "clap_score"}
    expected |= {"prompt_rank", "prompt_recall_10", "sound_rank", "cycle_consistency", "mert_frechet", "mert_mauve"}
    expected |= {"tempo_accuracy_1", "tempo_accuracy_2", "tempo_word", "clipped_clips", "silent_share", "loudness"}
    assert figures.keys() == expected | {"seconds"}
    assert card["reference"]["clips"] == 6
    assert len(card["reference"]["left_out"]) == 1
    assert card["models"].keys() == {"levels", "tempo", "clap", "own_clap", "mert"}
    assert figures["fad"]["low"] <= figures["fad"]["value"] <= figures["fad"]["high"]
    assert (figures["fad"]["clips"], figures["fad"]["reference_clips"]) == (4, 6)
    assert (figures["tempo_accuracy_1"]["clips"], figures["tempo_accuracy_1"]["value"]) == (2, 1)
    assert (figures["tempo_word"]["clips"], figures["tempo_word"]["value"]) == (4, 0.5)
    assert figures["seconds"]["value"] == pytest.approx(2.5)
    assert card["reference"]["figures"]["tempo_accuracy_2"]["clips"] == 6
    (line,) = [line for line in card["warnings"] if line.startswith("generated: FAD;")]
    assert line.endswith("12 vectors of 16 dimensions: the covariance is singular, the value far too high")

    clap = Clap.load(stack.config, CPU)
    left, right = (
        torch.cat([direct_windows(clap, path) for path in sorted(folder.glob("[0-9].wav"))]) for folder in sets
    )
    assert figures["fad"]["value"] == pytest.approx(written_out(left, right), rel=1e-2, abs=1e-5)

    page = (tmp_path / "results/evaluation.html").read_text()
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 5
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("<table") == page.count("</table>") == 1
    lines = [json.loads(line) for line in (tmp_path / "results/clips.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines][:2] == ["fast violin tune", "slow piano at 60 bpm"]
    assert all(isinstance(line["fad_per_song"], float) for line in lines)


def written_out(left: torch.Tensor, right: torch.Tensor) -> float:
    """The Fréchet distance by the eigenvalues of the product of both covariances."""
    means = [vectors.double().mean(0).numpy() for vectors in (left, right)]
    covariances = [np.cov(vectors.double().numpy().T) for vectors in (left, right)]
    values = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)
    spread = np.trace(covariances[0] + covariances[1]) - 2 * np.sqrt(values).sum()
    return float(np.square(means[0] - means[1]).sum() + spread)


def test_measurements_are_made_once_and_damaged_ones_again(tmp_path: Path, stack: Stack) -> None:
    folder = write_noises(tmp_path / "sounds", 3, 1.5, seed=3)
    cache, measured = MeasureCache(tmp_path / "cache"), clap_measure(stack)
    first = measure_set(folder, find_clips(folder), {"clap": measured}, cache)
    (folder / "0.wav").rename(folder / "renamed.wav")  # the content decides
    kept = sorted((tmp_path / "cache" / measured.identity).rglob("*.safetensors"))
    assert len(kept) == 3
    kept[0].write_bytes(b"damaged")
    calls: list[int] = []

    class Counting(ClapMeasure):
        def measure(self, sounds: Sequence[Sound]) -> list:
            calls.append(len(sounds))
            return super().measure(sounds)

    counting = Counting(measured.clap, 2.0, "small")
    second = measure_set(folder, find_clips(folder), {"clap": counting}, cache)
    assert calls == [1]
    before, after = (found.get("clap", "windows") for found in (first, second))
    assert before is not None
    assert after is not None
    torch.testing.assert_close(before.vectors[2:], after.vectors[:4])  # 1, 2, renamed
    torch.testing.assert_close(before.vectors[:2], after.vectors[4:])
    assert after.clips.tolist() == [0, 0, 1, 1, 2, 2]
    assert content_key(folder / "1.wav", None) != content_key(folder / "1.wav", 1.0)


def test_long_sounds_are_embedded_in_segments(tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_noises(tmp_path / "sounds", 1, 3.2, seed=4)
    measure = clap_measure(stack)
    monkeypatch.setattr(embeddings, "_WINDOWS_AT_ONCE", 3)
    samples, hz = soundfile.read(folder / "0.wav", dtype="float32")
    (found,) = measure.measure([Sound(torch.from_numpy(samples), hz)])
    torch.testing.assert_close(found["windows"], direct_windows(measure.clap, folder / "0.wav"), atol=1e-4, rtol=0)
    torch.testing.assert_close(found["whole"].norm(dim=1), torch.ones(1))


def test_mert_vectors(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    mert = Mert.load(stack.config, CPU)
    measure = MertMeasure(mert, stack.config.hubert_kmeans_cfg)
    generator = torch.Generator().manual_seed(0)
    sounds = [Sound(0.1 * torch.randn(samples, generator=generator), 16000) for samples in (40000, 24000, 40000, 100)]
    found = measure.measure(sounds)
    assert [len(own["seconds"]) for own in found] == [3, 2, 3, 1]
    wave = (sounds[2].wave - sounds[2].wave.mean()) / sounds[2].wave.std()
    features = mert.features(wave.unsqueeze(0))[0]
    torch.testing.assert_close(found[2]["maximum"][0], features.amax(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(found[2]["seconds"][1], features[50:100].mean(0), atol=1e-3, rtol=0)
    monkeypatch.setattr(embeddings, "LONGEST_MERT_SECONDS", 1)
    parts = measure.measure(sounds[:1])[0]["seconds"]
    assert parts.shape == found[0]["seconds"].shape
    assert not measure.is_mad


@needs_extra
def test_one_clip_and_clips_shorter_than_a_second(tmp_path: Path, stack: Stack) -> None:
    one, short = write_noises(tmp_path / "one", 1, 0.5, seed=5), write_noises(tmp_path / "short", 2, 0.5, seed=6)
    words = ["--checkpoint_dir", stack.folder, "--bootstrap", 2, "--cache_folder", tmp_path / "cache"]
    words += ["--metrics", "fad", "kad", "density", "prompts", "mert", "levels"]
    run(one, one, "--reference", short, *words, "--results_folder", tmp_path / "results")
    figures = json.loads((tmp_path / "results/card.json").read_text())["sets"]["one"]["figures"]
    for key in ("fad", "fad_inf", "fad_per_song", "kad", "density", "mert_mauve", "clap_score"):
        assert figures[key]["value"] is None
        assert figures[key]["note"].startswith("none: ")
    assert figures["loudness"]["value"] < -10
    assert figures["loudness"]["low"] is None


@needs_extra
def test_folders_of_one_name_and_names_that_plots_would_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = os.fsdecode(b"_$a$ <b>\xff")
    names = ["one/same", "other/same", "reference", odd]
    for name in (*names[:3], "odd"):
        write_noises(tmp_path / name, 3, 0.5, seed=5)
    (tmp_path / "odd").rename(tmp_path / odd)
    shutil.copytree(tmp_path / "one/same", tmp_path / "truth")
    monkeypatch.chdir(tmp_path)
    words = ["--metrics", "levels", "--cache_folder", "cache", "--results_folder", "results"]
    run(*names, "./one/../one/same", "truth", "--reference", "truth", *words)
    card = json.loads((tmp_path / "results/card.json").read_text())
    expected = [str(tmp_path / name) for name in names[:3]] + [odd, "truth"]
    assert list(card["sets"]) == expected
    assert card["reference"]["folder"] == "truth"
    assert "truth: this is the reference itself, so distances are meaningless" in card["warnings"]
    page = (tmp_path / "results/evaluation.html").read_text()
    assert re.findall(r"<th>([^<]+)</th>", page)[:4] == ["reference", *expected[:3]]
    assert "_$a$ &lt;b&gt;&#56575;" in page
    assert "data:image/png;base64," in page


@needs_extra
@pytest.mark.parametrize(("folder", "reference"), [("all", "all/reference"), ("all/reference", "all"), ("all", "link")])
def test_a_reference_inside_what_is_evaluated_is_refused(folder: str, reference: str, tmp_path: Path) -> None:
    write_noises(tmp_path / "all/reference", 1, 0.5, seed=5)
    write_noises(tmp_path / "all/generated", 1, 0.5, seed=6)
    (tmp_path / "link").symlink_to(tmp_path / "all/reference")
    words = ["--metrics", "levels", "--cache_folder", tmp_path / "cache", "--results_folder", tmp_path / "results"]
    with pytest.raises(UserError, match=r"holds .*, whose clips would be compared with themselves"):
        run(tmp_path / folder, "--reference", tmp_path / reference, *words)
    prompts = ["--prompts", tmp_path / "prompts.txt", "--results_folder", tmp_path / "all/results"]
    with pytest.raises(UserError, match=r"all: holds .*results.generated, whose clips would be compared"):
        run("--reference", tmp_path / "all", *words, *prompts)


def test_loudness_and_clipping_are_of_the_channels_of_a_file(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).normal(size=(2, 32000))
    clipped = noise[0].copy()
    clipped[:100] = 1.0
    written = {"mono": [noise[0]], "dual": [noise[0]] * 2, "both": noise, "clipped": [clipped, noise[1]]}
    for name, channels in written.items():
        soundfile.write(tmp_path / f"{name}.wav", np.stack(channels, axis=1), 16000, subtype="FLOAT")
    clips = find_clips(tmp_path)
    measured = measure_set(tmp_path, clips, {"levels": LevelMeasure()}, MeasureCache(tmp_path / "cache"), seconds=1.0)
    levels = measured.get("levels", "level")
    assert levels is not None
    found = {clip.path.stem: level for clip, level in zip(clips, levels.vectors, strict=True)}
    mono = float(found["mono"][LevelMeasure.LOUDNESS])
    for name in ("dual", "both"):
        assert float(found[name][LevelMeasure.LOUDNESS]) == pytest.approx(mono + 3.01, abs=0.2)
    assert float(found["clipped"][LevelMeasure.CLIPPED]) == pytest.approx(100 / 16000)
    assert all(float(found[name][LevelMeasure.CLIPPED]) == 0 for name in ("mono", "dual", "both"))


class SaysByLevel(torch.nn.Module):
    """Two classes; the louder, the more likely the second."""

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        level = waves.square().mean(1).sqrt()
        return torch.stack((torch.zeros_like(level), level), dim=1)


def test_kl_compares_clips_of_the_same_name(tmp_path: Path) -> None:
    sets = [write_noises(tmp_path / name, 3, 1.0, seed=10, level=level) for name, level in (("a", 0.05), ("b", 0.2))]
    (sets[1] / "2.wav").rename(sets[1] / "other.wav")
    cache, measures = MeasureCache(tmp_path / "cache"), {"passt": PasstMeasure(SaysByLevel(), CPU)}
    quiet, loud = (measure_set(folder, find_clips(folder), measures, cache) for folder in sets)
    to, of = divergence_figures(quiet, loud, Resampling(0, 10))
    assert to.clips == of.clips == 2
    p, q = (1 / (1 + math.exp(-level)) for level in (0.2, 0.05))
    assert to.value == pytest.approx(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)), rel=0.1)
    (sets[1] / "again").mkdir()
    shutil.copy(sets[1] / "0.wav", sets[1] / "again" / "1.wav")  # the name of two clips
    twice = measure_set(sets[1], find_clips(sets[1]), measures, cache)
    assert divergence_figures(quiet, twice, Resampling(0, 10))[0].clips == 1
    (sets[1] / "again" / "1.wav").unlink()
    (sets[1] / "0.wav").unlink()
    (sets[1] / "1.wav").unlink()
    loud = measure_set(sets[1], find_clips(sets[1]), measures, cache)
    assert divergence_figures(quiet, loud, Resampling(0, 10))[0].note.startswith("none: no clip has the name")


@needs_extra
def test_a_model_and_prompts_are_enough(tmp_path: Path, stack: Stack, sounds: Path) -> None:
    (tmp_path / "prompts.txt").write_text("slow piano\nfast violin tune\na third\n")
    words = ["--reference", sounds, "--prompts", tmp_path / "prompts.txt", "--num_prompts", 2, *stack.arguments()]
    words += ["--duration", 1, "--num_samples", 1, "--return_coarse_wave", "--metrics", "prompts", "levels"]
    words += ["--cache_folder", tmp_path / "cache", "--results_folder", tmp_path / "results"]
    run(*words)
    card = json.loads((tmp_path / "results/card.json").read_text())
    assert card["sets"]["generated"]["clips"] == card["sets"]["generated"]["prompts"] == 2
    figures = card["sets"]["generated"]["figures"]
    assert figures["clap_score"]["value"] == pytest.approx(figures["cycle_consistency"]["value"])
    assert card["checkpoint"]["semantic_path"] == str(stack.weights("semantic"))
    story = json.loads(next((tmp_path / "results/generated").glob("*.json")).read_text())
    scores = [json.loads(line) for line in (tmp_path / "results/clips.jsonl").read_text().splitlines()]
    own = next(line for line in scores if line["prompt"] == story["prompt"])
    assert own["clap_score"] == pytest.approx(story["similarity"], abs=0.02)  # of the wave before its 16 bits
    with pytest.raises(UserError, match=r"generated: not empty; evaluate what it holds without --prompts"):
        run(*words)
