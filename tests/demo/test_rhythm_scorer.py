"""The rhythm scorer: its descriptors, how it is fitted, and its scores of music."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import forks
from helpers.paths import REPOSITORY
from helpers.small_stack import CPU, Stack
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_musiclm import HZ, PROMPT, tune

from demo.defaults import BUNDLE, RHYTHM_SCORER
from demo.rhythm.combined import ClapRhythmScorer
from demo.rhythm.descriptors import describe_rhythm
from demo.rhythm.scorer import FILE_NAME, RhythmScorer
from demo.rhythm.training import canonical, principal_direction
from open_musiclm.audio import Sound, resampled
from open_musiclm.data.shards import StoredTokens
from open_musiclm.data.store_description import StoreDescription
from open_musiclm.data.token_store_writer import TokenStoreWriter
from open_musiclm.errors import UserError
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.scorers import Scorer

TRAIN = REPOSITORY / "scripts" / "train_rhythm_ear.py"
FRAME_HZ = 50
SHORTEST_LAG = 4  # frames
STRUCK, HELD = 0, 1  # tokens
CAPTIONS = {"slow": ["a slow tune", "slow music", "something slow"], "fast": ["a fast tune", "quick fast music"]}
EVERY = {"slow": 50, "fast": 15}  # frames from one onset to the next


def pulses(period: int, frames: int = 400) -> torch.Tensor:
    """Features [1, frames, 3] of which the first rises every `period` frames."""
    features = torch.zeros(1, frames, 3)
    features[0, ::period, 0] = 1.0
    return features


@given(st.integers(6, 60))
@settings(deadline=None)
def test_a_curve_is_most_like_itself_a_period_later(period: int) -> None:
    described = describe_rhythm(pulses(period), torch.tensor([1.0, 0.0, 0.0]), FRAME_HZ)[0]
    periodicity = described[: 2 * FRAME_HZ - SHORTEST_LAG]
    assert int(periodicity.argmax()) + SHORTEST_LAG == period
    peaks_a_second = described[len(periodicity)]
    assert float(peaks_a_second) == pytest.approx(FRAME_HZ / period, abs=1.5 * FRAME_HZ / 400)


@given(st.integers(3, 300), st.floats(0.1, 10), st.floats(-5, 5), st.integers(0, 1000))
@settings(deadline=None)
def test_descriptors_of_any_length_are_numbers_that_neither_level_nor_size_change(
    frames: int, size: float, level: float, seed: int
) -> None:
    features = torch.randn(2, frames, 3, generator=torch.Generator().manual_seed(seed))
    direction = torch.tensor([0.6, 0.8, 0.0])
    described = describe_rhythm(features, direction, FRAME_HZ)
    assert described.isfinite().all()
    other = describe_rhythm(size * features + level, direction, FRAME_HZ)
    count = described.shape[1] // 2
    spreads = torch.tensor([count - 2, 2 * count - 2])
    others = torch.ones(2 * count, dtype=torch.bool).index_fill(0, spreads, False)
    torch.testing.assert_close(described[:, others], other[:, others], atol=2e-2, rtol=1e-2)
    torch.testing.assert_close(size * described[:, spreads], other[:, spreads], atol=1e-2, rtol=1e-2)


def test_silence_is_described_too() -> None:
    assert describe_rhythm(torch.zeros(1, 50, 3), torch.tensor([1.0, 0.0, 0.0]), FRAME_HZ).isfinite().all()


def test_canonical_directions_of_variables_with_given_correlations() -> None:
    """Of two pairs of variables with correlations of 0.9 and 0.6, hidden by rotations, the two are found."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(20000, 6, generator=generator), torch.randn(20000, 5, generator=generator)
    for column, correlation in enumerate((0.9, 0.6)):
        right[:, column] = correlation * left[:, column] + (1 - correlation**2) ** 0.5 * right[:, column]
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    left = left @ rotation
    count = len(left)
    of_left, of_right, correlations = canonical(
        left.t() @ left / count, left.t() @ right / count, right.t() @ right / count
    )
    assert correlations[:2].tolist() == pytest.approx([0.9, 0.6], abs=0.03)
    assert float(correlations[2]) < 0.05
    pair = torch.stack((left @ of_left[:, 0], right @ of_right[:, 0]))
    assert float(torch.corrcoef(pair)[0, 1]) == pytest.approx(0.9, abs=0.01)


def test_the_direction_points_to_the_rarer_and_stronger() -> None:
    centroids = torch.tensor([[0.0, 1.0], [0.1, -1.0], [-9.0, 0.0]])
    direction = principal_direction(centroids, torch.tensor([50, 50, 5]))
    assert float(direction @ torch.tensor([-1.0, 0.0])) == pytest.approx(1.0, abs=0.05)


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0, 0.95))
@settings(deadline=None)
def test_information_is_a_log_ratio_of_densities(text: float, rhythm: float, correlation: float) -> None:
    scorer = RhythmScorer(FRAME_HZ, features=3, text_dim=2, components=1)
    scorer.rhythm_spread.fill_(1.0)
    scorer.rhythm_directions[0], scorer.text_directions[0], scorer.correlations[0] = 1.0, 1.0, correlation
    rhythms = torch.zeros(1, len(scorer.rhythm_mean))
    rhythms[0, 0] = rhythm
    joint = torch.distributions.MultivariateNormal(
        torch.zeros(2), torch.tensor([[1.0, correlation], [correlation, 1.0]])
    )
    alone = torch.distributions.Normal(0.0, 1.0)
    expected = joint.log_prob(torch.tensor([text, rhythm])) - alone.log_prob(torch.tensor([text, rhythm])).sum()
    found = scorer.information(torch.tensor([[text, 7.0]]), rhythms)
    assert float(found) == pytest.approx(float(expected), abs=1e-3)


@pytest.fixture(scope="module")
def corpus(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens of 80 sounds of 6 s of slow or fast onsets, and captions that say so."""
    folder = tmp_path_factory.mktemp("rhythms")
    config, generator = stack.config, torch.Generator().manual_seed(5)
    rvq, acoustic = config.clap_rvq_cfg, config.encodec_cfg
    lines = []
    with TokenStoreWriter(folder / "tokens", StoreDescription(config, {})) as writer:
        for number in range(80):
            tempo = ("slow", "fast")[number % 2]
            semantic = torch.full((6 * FRAME_HZ - 1, 1), HELD)
            start = int(torch.randint(EVERY[tempo], (), generator=generator))
            semantic[start :: EVERY[tempo] + number % 3] = STRUCK
            zeros = [torch.zeros(5, rvq.rq_num_quantizers, dtype=torch.long)]
            zeros += [torch.zeros(6 * acoustic.output_hz, count, dtype=torch.long) for count in (3, 5)]
            writer.add([StoredTokens(f"{number}.wav", 0.0, 6.0, zeros[0], semantic, zeros[1], zeros[2])])
            lines.append(json.dumps({"file": f"{number}.wav", "captions": CAPTIONS[tempo]}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


def train(stack: Stack, corpus: Path, results: Path, *more: str) -> subprocess.CompletedProcess[str]:
    paths = ["--captions", str(corpus / "captions.jsonl"), "--tokens_folder", str(corpus / "tokens")]
    parts = ["--model_config", str(stack.model_config), "--kmeans_path", str(stack.weights("hubert_kmeans"))]
    return forks.run([TRAIN, *paths, *parts, "--results_folder", results, "--device", "cpu", *more])


@pytest.fixture(scope="module")
def trained(stack: Stack, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("scorer")
    done = train(stack, corpus, results)
    assert done.returncode == 0, done.stderr
    assert "80 sounds" in done.stdout
    return results


def test_a_fitted_scorer_tells_what_captions_say_of_the_tempo(stack: Stack, trained: Path) -> None:
    scorer = RhythmScorer.load(trained, stack.config, CPU)
    tokenizer = stack.tokenizer()
    assert float(scorer.correlations[0]) > 0.8
    texts = tokenizer.clap.embed_text([CAPTIONS[tempo][0] for tempo in ("slow", "fast")])
    for place, tempo in enumerate(("slow", "fast")):
        semantic = torch.full((2, 100), HELD)  # 2 s, CLAP's window
        semantic[:, 3 :: EVERY[tempo]] = STRUCK
        nats = scorer.score(texts, tokenizer.semantic.centroids[semantic], window=100)
        assert int(nats.argmax()) == place
        assert float(nats[place]) > 0.2 > 0.0 > float(nats[1 - place])


def test_a_scorer_that_is_there_is_kept(stack: Stack, corpus: Path, trained: Path) -> None:
    before = load_file(trained / FILE_NAME)
    refused = train(stack, corpus, trained)
    assert refused.returncode == 2
    assert "give --overwrite or another --results_folder" in refused.stderr
    assert train(stack, corpus, trained, "--overwrite").returncode == 0
    after = load_file(trained / FILE_NAME)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_captions_of_other_sounds_are_refused(stack: Stack, corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "captions.jsonl"
    other.write_text("\n".join(json.dumps({"file": f"x{number}.wav", "caption": "a"}) for number in range(60)))
    refused = train(stack, corpus, tmp_path / "scorer", "--captions", str(other))
    assert refused.returncode == 2
    assert f"{other}: has captions of 0 of the 80 sounds" in refused.stderr
    assert not (tmp_path / "scorer").exists()


def test_a_file_of_another_kind_is_no_scorer(stack: Stack) -> None:
    with pytest.raises(UserError, match="holds clap_rvq weights; a rhythm scorer is needed here"):
        RhythmScorer.load(stack.weights("clap_rvq"), stack.config, CPU)


def test_a_scorer_without_its_weights_is_refused(stack: Stack, tmp_path: Path) -> None:
    save_file({"direction": torch.zeros(3)}, tmp_path / FILE_NAME, {"kind": "rhythm_scorer"})
    with pytest.raises(UserError, match="not a rhythm scorer for this model config"):
        RhythmScorer.load(tmp_path, stack.config, CPU)


@pytest.mark.parametrize("content", [b"", b"no safetensors at all"])
def test_a_damaged_file_is_refused(stack: Stack, tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        RhythmScorer.load(tmp_path, stack.config, CPU)


def test_a_file_of_the_earlier_version_is_read(stack: Stack, trained: Path, tmp_path: Path) -> None:
    """It was called rhythm_ear, in a folder or in a bundle."""
    metadata = {"format": "open_musiclm", "kind": "rhythm_ear", "model_config": stack.config.model_dump_json()}
    save_file(load_file(trained / FILE_NAME), tmp_path / "rhythm_ear.safetensors", metadata)
    earlier, now = RhythmScorer.load(tmp_path, stack.config, CPU), RhythmScorer.load(trained, stack.config, CPU)
    assert all(torch.equal(earlier.state_dict()[name], tensor) for name, tensor in now.state_dict().items())


def test_a_scorer_of_other_backbones_is_refused(stack: Stack, tmp_path: Path) -> None:
    scorer = RhythmScorer(stack.config.hubert_kmeans_cfg.output_hz, features=5, text_dim=7, components=2)
    scorer.save(tmp_path / FILE_NAME)
    with pytest.raises(UserError, match="takes features of 5 and texts of 7 numbers"):
        ClapRhythmScorer.load(stack.musiclm(()), tmp_path / FILE_NAME)


def test_more_than_a_window_is_scored_window_by_window(stack: Stack, trained: Path) -> None:
    scorer, tokenizer = RhythmScorer.load(trained, stack.config, CPU), stack.tokenizer()
    features = tokenizer.semantic.centroids[torch.randint(2, (3, 250), generator=torch.Generator().manual_seed(0))]
    texts = tokenizer.clap.embed_text(["slow music"]).expand(3, -1)
    parts = [scorer.score(texts, part, 100) for part in (features[:, :100], features[:, 100:200], features[:, 150:])]
    torch.testing.assert_close(scorer.score(texts, features, 100), torch.stack(parts).mean(dim=0))
    torch.testing.assert_close(scorer.score(texts, features[:, :60], 100), scorer.score(texts, features[:, :60], 60))


def test_rhythm_is_part_of_the_score_of_music_that_lasts(stack: Stack, trained: Path) -> None:
    model = stack.musiclm(())
    scorer, clap_alone = ClapRhythmScorer.load(model, trained), ClapRhythmScorer.load(model, None)
    assert isinstance(scorer, Scorer)
    lasting, short = tune(9.0, HZ).wave[None], tune(3.9, HZ).wave[None]
    ratings = scorer.rate([PROMPT], lasting)
    assert ratings.rhythm is not None
    assert torch.equal(ratings.similarity, clap_alone.score([PROMPT], lasting))
    expected = ratings.similarity + ratings.rhythm / model.tokenizer.clap.scale
    torch.testing.assert_close(scorer.score([PROMPT], lasting), expected)
    assert torch.equal(scorer.score([PROMPT], short), clap_alone.score([PROMPT], short))


def test_a_batch_is_scored_as_its_waves_one_by_one(
    stack: Stack, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each text is embedded once, and MERT, whose time and memory grow with the square of what it is given, takes a
    window of all waves after the other."""
    model = stack.musiclm(())
    scorer = ClapRhythmScorer.load(model, trained)
    waves = torch.stack([tune(9.0, HZ).wave, tune(9.0, HZ).wave.flip(0), 0.3 * tune(9.0, HZ).wave.roll(700)])
    prompts = [PROMPT, "fast violin", PROMPT]
    single = [scorer.rate([prompt], wave[None]) for prompt, wave in zip(prompts, waves, strict=True)]
    shapes: list[tuple[int, ...]] = []
    texts: list[str] = []
    mert, clap = model.tokenizer.semantic.mert, model.tokenizer.clap
    features, embed = mert.features, clap.embed_text
    monkeypatch.setattr(mert, "features", lambda given: (shapes.append(tuple(given.shape)), features(given))[1])
    monkeypatch.setattr(clap, "embed_text", lambda given: (texts.extend(given), embed(given))[1])
    batch = ClapRhythmScorer(stack_with(model), scorer.rhythm).rate(prompts, waves)
    assert shapes == [(3, round(scorer.window_seconds * mert.sample_hz))] * 5
    assert texts == [PROMPT, "fast violin"]
    torch.testing.assert_close(batch.similarity, torch.cat([one.similarity for one in single]))
    torch.testing.assert_close(batch.rhythm, torch.cat([one.rhythm for one in single]), rtol=1e-3, atol=1e-3)


def stack_with(model: MusicLM) -> MusicLM:
    """The same model with no text embedded yet."""
    return MusicLM(model.config, {}, model.tokenizer)


def struck(a_second: float, seconds: float = 8.0, sample_hz: int = 24000) -> Sound:
    """Broken chords of a plucked sort, so many notes a second."""
    time = torch.arange(round(seconds * sample_hz)) / sample_hz
    note = (time * a_second).long()
    pitch = 220 * 2 ** (torch.tensor([0, 4, 7, 12, 7, 4])[note % 6] / 12)
    tones = [torch.sin(2 * torch.pi * pitch * overtone * time) / overtone for overtone in (1, 2, 3, 4)]
    return Sound(0.3 * torch.stack(tones).sum(dim=0) * torch.exp(-6 * (time % (1 / a_second))), sample_hz)


@pytest.fixture(scope="module")
def shipped() -> Callable[[str, Sound], float]:
    model = MusicLM.from_pretrained(BUNDLE, device="cpu")
    scorer = ClapRhythmScorer.load(model, RHYTHM_SCORER)

    def nats(prompt: str, sound: Sound) -> float:
        rhythm = scorer.rate([prompt], resampled(sound, model.sample_hz)[None]).rhythm
        assert rhythm is not None
        return float(rhythm)

    return nats


@pytest.mark.parametrize("instrument", ["piano", "guitar", "marimba"])
def test_the_shipped_scorer_tells_slow_from_fast(shipped: Callable[[str, Sound], float], instrument: str) -> None:
    slow, fast = struck(1.0), struck(5.0)
    assert shipped(f"slow {instrument}", slow) > shipped(f"fast {instrument}", slow) + 0.5
    assert shipped(f"fast {instrument}", fast) > shipped(f"slow {instrument}", fast) + 0.5
