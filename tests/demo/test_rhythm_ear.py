"""An ear for rhythm: what it takes down of curves, how it is learned, and what it makes of music."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.paths import DEMO, REPOSITORY
from helpers.small_stack import CPU, Stack
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_musiclm import HZ, PROMPT, tune

from demo.rhythm.scorer import RhythmEar, describe_rhythm
from demo.rhythm.training import canonical, principal_direction
from open_musiclm.audio import Sound, resampled
from open_musiclm.checkpoints import save_weights, weights_name
from open_musiclm.checkpoints.bundle import KINDS, pack
from open_musiclm.config import load_model_config
from open_musiclm.data.shards import StoredTokens
from open_musiclm.data.store_description import StoreDescription
from open_musiclm.data.token_store_writer import TokenStoreWriter
from open_musiclm.errors import UserError
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.scorers import Heard, Listener
from open_musiclm.generation.session import Options
from open_musiclm.tokenizers.music_tokenizer import MusicTokenizer

SHIPPED = DEMO / "bundle"
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


def test_canonical_directions_of_known_variables() -> None:
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
def test_information_is_a_log_ratio_of_densities(said: float, heard: float, correlation: float) -> None:
    ear = RhythmEar(FRAME_HZ, features=3, text_dim=2, components=1)
    ear.rhythm_spread.fill_(1.0)
    ear.rhythm_directions[0], ear.text_directions[0], ear.correlations[0] = 1.0, 1.0, correlation
    rhythm = torch.zeros(1, len(ear.rhythm_mean))
    rhythm[0, 0] = heard
    together = torch.distributions.MultivariateNormal(
        torch.zeros(2), torch.tensor([[1.0, correlation], [correlation, 1.0]])
    )
    alone = torch.distributions.Normal(0.0, 1.0)
    expected = together.log_prob(torch.tensor([said, heard])) - alone.log_prob(torch.tensor([said, heard])).sum()
    found = ear.information(torch.tensor([[said, 7.0]]), rhythm)
    assert float(found) == pytest.approx(float(expected), abs=1e-3)


@pytest.fixture(scope="module")
def corpus(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens of 80 sounds of 6 s that are struck slowly or fast, and captions that say so."""
    folder = tmp_path_factory.mktemp("rhythms")
    config, generator = stack.config, torch.Generator().manual_seed(5)
    rvq, acoustic = config.clap_rvq_cfg, config.encodec_cfg
    lines = []
    with TokenStoreWriter(folder / "tokens", StoreDescription(config, {})) as writer:
        for number in range(80):
            pace = ("slow", "fast")[number % 2]
            semantic = torch.full((6 * FRAME_HZ - 1, 1), HELD)
            start = int(torch.randint(EVERY[pace], (), generator=generator))
            semantic[start :: EVERY[pace] + number % 3] = STRUCK
            zeros = [torch.zeros(5, rvq.rq_num_quantizers, dtype=torch.long)]
            zeros += [torch.zeros(6 * acoustic.output_hz, count, dtype=torch.long) for count in (3, 5)]
            writer.add([StoredTokens(f"{number}.wav", 0.0, 6.0, zeros[0], semantic, zeros[1], zeros[2])])
            lines.append(json.dumps({"file": f"{number}.wav", "captions": CAPTIONS[pace]}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


def train(stack: Stack, corpus: Path, results: Path, *more: str) -> subprocess.CompletedProcess[str]:
    paths = ["--captions", str(corpus / "captions.jsonl"), "--tokens_folder", str(corpus / "tokens")]
    parts = ["--model_config", str(stack.model_config), "--kmeans_path", str(stack.weights("hubert_kmeans"))]
    command = [sys.executable, str(TRAIN), *paths, *parts, "--results_folder", str(results), "--device", "cpu", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def trained(stack: Stack, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("ear")
    done = train(stack, corpus, results)
    assert done.returncode == 0, done.stderr
    assert "80 sounds" in done.stdout
    return results


def test_a_learned_ear_tells_what_captions_say_of_the_pace(stack: Stack, trained: Path) -> None:
    ear = RhythmEar.load(trained, stack.config, CPU)
    tokenizer = stack.tokenizer()
    assert float(ear.correlations[0]) > 0.8
    texts = tokenizer.clap.embed_text([CAPTIONS[pace][0] for pace in ("slow", "fast")])
    for place, pace in enumerate(("slow", "fast")):
        semantic = torch.full((2, 100), HELD)  # 2 s, as CLAP hears
        semantic[:, 3 :: EVERY[pace]] = STRUCK
        nats = ear.hear(texts, tokenizer.semantic.centroids[semantic], window=100)
        assert int(nats.argmax()) == place
        assert float(nats[place]) > 0.2 > 0.0 > float(nats[1 - place])


def test_an_ear_that_is_there_is_kept(stack: Stack, corpus: Path, trained: Path) -> None:
    before = load_file(trained / weights_name("rhythm_ear"))
    refused = train(stack, corpus, trained)
    assert refused.returncode == 2
    assert "give --overwrite or another --results_folder" in refused.stderr
    assert train(stack, corpus, trained, "--overwrite").returncode == 0
    after = load_file(trained / weights_name("rhythm_ear"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_captions_of_other_sounds_are_refused(stack: Stack, corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "captions.jsonl"
    other.write_text("\n".join(json.dumps({"file": f"x{number}.wav", "caption": "a"}) for number in range(60)))
    refused = train(stack, corpus, tmp_path / "ear", "--captions", str(other))
    assert refused.returncode == 2
    assert f"{other}: has captions of 0 of the 80 sounds" in refused.stderr
    assert not (tmp_path / "ear").exists()


def test_a_file_of_another_kind_is_no_ear(stack: Stack) -> None:
    with pytest.raises(UserError, match="rhythm_ear weights are needed here"):
        RhythmEar.load(stack.weights("clap_rvq"), stack.config, CPU)


def test_an_ear_without_its_weights_is_refused(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / weights_name("rhythm_ear")
    save_weights(path, "rhythm_ear", {"direction": torch.zeros(3)}, stack.config)
    with pytest.raises(UserError, match="holds no ear for rhythm"):
        RhythmEar.load(path, stack.config, CPU)


def test_more_than_a_window_is_heard_window_by_window(stack: Stack, trained: Path) -> None:
    ear, tokenizer = RhythmEar.load(trained, stack.config, CPU), stack.tokenizer()
    features = tokenizer.semantic.centroids[torch.randint(2, (3, 250), generator=torch.Generator().manual_seed(0))]
    texts = tokenizer.clap.embed_text(["slow music"]).expand(3, -1)
    parts = [ear.hear(texts, part, 100) for part in (features[:, :100], features[:, 100:200], features[:, 150:])]
    torch.testing.assert_close(ear.hear(texts, features, 100), torch.stack(parts).mean(dim=0))
    torch.testing.assert_close(ear.hear(texts, features[:, :60], 100), ear.hear(texts, features[:, :60], 60))


def test_an_ear_hears_the_sketches_of_music_that_lasts(
    stack: Stack, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three samples of two drafts, at most nine rows at a time; 3 s are too short to be sketched."""
    model = MusicLM(
        stack.config,
        stack.stages(("semantic", "coarse")),
        stack.tokenizer(),
        ear=RhythmEar.load(trained, stack.config, CPU),
    )
    heard: list[tuple[int, int]] = []
    hear = RhythmEar.hear

    def counted(ear: RhythmEar, texts: torch.Tensor, features: torch.Tensor, window: int) -> torch.Tensor:
        heard.append((features.shape[0], features.shape[1]))
        return hear(ear, texts, features, window)

    monkeypatch.setattr(RhythmEar, "hear", counted)
    for seconds in (3.0, 5.0):
        options = Options(coarse_wave_only=True, max_batch_size=9)
        waves = model.generate_best(PROMPT, seconds, 3, 2, options, num_sketches=4)
        assert [len(wave) for wave in waves] == [seconds * model.sample_hz] * 3
    assert heard == [(8, 5 * FRAME_HZ - 1), (4, 5 * FRAME_HZ - 1)]
    with pytest.raises(UserError, match="num_sketches 10"):
        model.generate_best(PROMPT, 5.0, 1, 2, Options(max_batch_size=9), num_sketches=10)


def test_an_ear_has_a_say_in_what_is_closest(stack: Stack, trained: Path) -> None:
    tokenizer = stack.tokenizer()
    ear = RhythmEar.load(trained, stack.config, CPU)
    with_ear, without = Listener(stack.config, tokenizer, ear), Listener(stack.config, tokenizer, None)
    lasting, short = tune(9.0, HZ).wave, tune(3.9, HZ).wave
    heard = with_ear.hear(PROMPT, lasting)
    assert heard.rhythm
    assert heard.similarity == without.hear(PROMPT, lasting).similarity
    assert heard.closeness == pytest.approx(heard.similarity + heard.rhythm / tokenizer.clap.scale)
    assert with_ear.hear(PROMPT, short) == without.hear(PROMPT, short)


def test_a_long_wave_is_heard_window_by_window(stack: Stack, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MERT's time and memory grow with the square of what it hears at once."""
    tokenizer = stack.tokenizer()
    listener = Listener(stack.config, tokenizer, RhythmEar.load(trained, stack.config, CPU))
    lengths: list[int] = []
    features = tokenizer.semantic.mert.features

    def counted(waves: torch.Tensor) -> torch.Tensor:
        lengths.append(waves.shape[1])
        return features(waves)

    monkeypatch.setattr(tokenizer.semantic.mert, "features", counted)
    assert listener.hear(PROMPT, tune(9.0, HZ).wave).rhythm
    assert lengths == [round(listener.window_seconds * tokenizer.semantic.mert.sample_hz)] * 5


def test_the_closest_comes_first_not_the_most_similar(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    import infer_top_match

    from open_musiclm.generation.inference import generate_candidates, load_musiclm, needed_stages

    words = [PROMPT, *stack.arguments(), "--device", "cpu", "--duration", "1", "--return_coarse_wave"]
    parsed = infer_top_match.arguments().parse_args(words)
    said = iter([Heard(0.9, -3.0, 0.1), Heard(0.2, 1.0, 0.3), Heard(0.4, -1.0, 0.2)])
    monkeypatch.setattr(Listener, "hear", lambda self, prompt, wave: next(said))
    (candidates,) = generate_candidates(load_musiclm(parsed, needed_stages(parsed)), [PROMPT], parsed, 3)
    assert [candidate.number for candidate in candidates] == [1, 2, 0]


def test_a_bundle_takes_its_ear_along(stack: Stack, trained: Path, tmp_path: Path) -> None:
    paths = {kind: stack.weights(kind) for kind in KINDS}
    files = pack(stack.model_config, {**paths, "rhythm_ear": trained}, tmp_path / "bundle")
    assert tmp_path / "bundle" / weights_name("rhythm_ear") in files
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    import infer_top_match

    from open_musiclm.generation.inference import load_musiclm, needed_stages

    whole = ["--checkpoint_dir", str(tmp_path / "bundle")]
    for words, expected in ((whole, True), (stack.arguments(), False)):
        parsed = infer_top_match.arguments().parse_args([PROMPT, "--device", "cpu", *words])
        assert (load_musiclm(parsed, needed_stages(parsed)).listener.ear is not None) == expected


def test_sketches_without_an_ear_are_refused(stack: Stack) -> None:
    command = [sys.executable, str(REPOSITORY / "scripts" / "infer_top_match.py"), PROMPT, *stack.arguments()]
    sketches = ["--num_drafts", "2", "--num_sketches", "3", "--device", "cpu"]
    refused = subprocess.run([*command, *sketches], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "give --ear_path, or a bundle that holds one" in refused.stderr


def test_an_ear_of_other_backbones_is_refused(stack: Stack) -> None:
    command = [sys.executable, str(REPOSITORY / "scripts" / "infer_top_match.py"), PROMPT, *stack.arguments()]
    ear = RhythmEar(stack.config.hubert_kmeans_cfg.output_hz, features=5, text_dim=7, components=2)
    path = stack.folder / "other" / weights_name("rhythm_ear")
    save_weights(path, "rhythm_ear", ear.state_dict(), stack.config)
    done = subprocess.run(
        [*command, "--ear_path", str(path), "--device", "cpu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"{path}: this ear for rhythm knows features of 5 and texts of 7 numbers" in done.stderr


def struck(a_second: float, seconds: float = 8.0, sample_hz: int = 24000) -> Sound:
    """Broken chords of a plucked sort, so many notes a second."""
    time = torch.arange(round(seconds * sample_hz)) / sample_hz
    note = (time * a_second).long()
    pitch = 220 * 2 ** (torch.tensor([0, 4, 7, 12, 7, 4])[note % 6] / 12)
    tones = [torch.sin(2 * torch.pi * pitch * overtone * time) / overtone for overtone in (1, 2, 3, 4)]
    return Sound(0.3 * torch.stack(tones).sum(dim=0) * torch.exp(-6 * (time % (1 / a_second))), sample_hz)


@pytest.fixture(scope="module")
def shipped() -> Callable[[str, Sound], float]:
    config = load_model_config(SHIPPED / "model_config.json")
    tokenizer = MusicTokenizer.load(config, SHIPPED, SHIPPED, CPU)
    listener = Listener(config, tokenizer, RhythmEar.load(SHIPPED, config, CPU))

    def nats(prompt: str, sound: Sound) -> float:
        rhythm = listener.hear(prompt, resampled(sound, listener.sample_hz)).rhythm
        assert rhythm is not None
        return rhythm

    return nats


@pytest.mark.parametrize("instrument", ["piano", "guitar", "marimba"])
def test_the_shipped_ear_tells_slow_from_fast(shipped: Callable[[str, Sound], float], instrument: str) -> None:
    slow, fast = struck(1.0), struck(5.0)
    assert shipped(f"slow {instrument}", slow) > shipped(f"fast {instrument}", slow) + 0.5
    assert shipped(f"fast {instrument}", fast) > shipped(f"slow {instrument}", fast) + 0.5
