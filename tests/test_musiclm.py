"""The hierarchy on a small model: durations, continuation, batches, streaming, regeneration."""

import pytest
import torch
from helpers.small_stack import Stack
from hypothesis import given, settings
from hypothesis import strategies as st

from open_musiclm.audio import Sound
from open_musiclm.config import GenerationConfig
from open_musiclm.errors import UserError
from open_musiclm.generation.decoding.flat_generator import FlatGenerator
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.progress import Progress
from open_musiclm.generation.scorers import ClapScorer

HZ = 24000
PROMPT = "a slow piano piece"


@pytest.fixture(scope="module")
def musiclm(stack: Stack) -> MusicLM:
    return stack.musiclm()


def tune(seconds: float, sample_hz: int = 22050) -> Sound:
    time = torch.arange(round(seconds * sample_hz)) / sample_hz
    return Sound(0.3 * torch.sin(440 * 2 * torch.pi * time) + 0.1 * torch.sin(660 * 2 * torch.pi * time), sample_hz)


@pytest.mark.parametrize("seconds", [0.001, 0.3, 0.5, 0.8, 1.0, 1.2, 1.999, 2.0, 3.999, 5.0001, 30.0])
def test_any_duration_is_exact_to_the_sample(musiclm: MusicLM, seconds: float) -> None:
    (wave,) = musiclm.generate(PROMPT, seconds)
    assert wave.shape == (round(seconds * HZ),)
    assert wave.isfinite().all()


@settings(max_examples=8, deadline=None)
@given(st.floats(0.01, 4))
def test_any_duration_at_all(musiclm_of_module: None, seconds: float) -> None:
    (wave,) = _KEPT[0].generate(PROMPT, seconds, config=GenerationConfig(return_coarse_wave=True))
    assert wave.shape == (round(seconds * HZ),)


_KEPT: list[MusicLM] = []


@pytest.fixture(scope="module")
def musiclm_of_module(musiclm: MusicLM) -> None:
    _KEPT.append(musiclm)


def test_a_longer_piece_begins_like_a_shorter_one(musiclm: MusicLM) -> None:
    """Until the windows that end with the shorter one, which begin earlier so as to be whole."""
    (long,) = musiclm.generate(PROMPT, 4.0)
    (short,) = musiclm.generate(PROMPT, 2.0)
    same = round(0.8 * HZ)
    assert torch.equal(long[:same], short[:same])


def test_a_sample_depends_on_seed_prompt_and_number_only(musiclm: MusicLM) -> None:
    prompts = [PROMPT, "fast violin"]
    together = musiclm.generate(prompts, 1.0, num_samples=3)
    assert len(together) == 6
    for batch in (1, 2, 4):
        apart = musiclm.generate(prompts, 1.0, num_samples=3, config=GenerationConfig(max_batch_size=batch))
        for left, right in zip(together, apart, strict=True):
            torch.testing.assert_close(left, right, atol=1e-5, rtol=0)
    (alone,) = musiclm.generate("fast violin", 1.0)
    torch.testing.assert_close(alone, together[3], atol=1e-5, rtol=0)
    assert not torch.equal(together[3], together[4])
    assert not torch.equal(together[0], musiclm.generate(PROMPT, 1.0, config=GenerationConfig(seed=1))[0])


def test_chunks_join_to_the_whole_wave(musiclm: MusicLM) -> None:
    whole = torch.stack(musiclm.generate(PROMPT, 3.3, num_samples=2))
    chunks = [chunk for _, chunk in musiclm.stream(PROMPT, 3.3, num_samples=2)]
    assert len(chunks) > 3
    assert torch.equal(torch.cat(chunks, dim=1), whole)


def test_the_first_sound_is_out_before_the_last_token_is_sampled(musiclm: MusicLM) -> None:
    class Counted(Progress):
        seconds = 0.0

        def advance(self, stage: str, seconds: float) -> None:
            self.seconds += seconds if stage == "coarse" else 0.0

    counted = Counted()
    chunks = musiclm.stream(PROMPT, 8.0, progress=counted)
    next(chunks)
    assert counted.seconds <= 1.2 + 1e-6
    for _ in chunks:
        pass
    assert counted.seconds == pytest.approx(8.0, abs=0.05)


@pytest.mark.parametrize("given_seconds", [0.01, 0.1, 0.77, 1.0, 2.345, 7.0])
def test_continuation_keeps_the_given_sound_and_adds_the_duration(musiclm: MusicLM, given_seconds: float) -> None:
    given = tune(given_seconds)
    waves = musiclm.generate(PROMPT, 1.3, num_samples=2, audio_prompt=given)
    kept = round(given.seconds * HZ)
    for wave in waves:
        assert wave.shape == (kept + round(1.3 * HZ),)
        assert torch.equal(wave[:kept], waves[0][:kept])
    assert not torch.equal(waves[0][kept:], waves[1][kept:])


def test_continuation_of_sound_at_the_codec_rate_is_untouched(musiclm: MusicLM) -> None:
    given = tune(1.5, HZ)
    (wave,) = musiclm.generate(PROMPT, 0.5, audio_prompt=given)
    assert torch.equal(wave[: given.wave.shape[0]], given.wave)


def test_continuation_hears_the_last_seconds(musiclm: MusicLM) -> None:
    """With the most likely tokens everywhere, only the context can make a difference."""
    config = GenerationConfig(semantic_temperature=0.0, coarse_temperature=0.0, fine_temperature=0.0)
    given = tune(3.0, HZ)
    early, late = given.wave.clone(), given.wave.clone()
    early[:HZ] = 0.0  # the semantic context is the last second only; earlier sound does not count ...
    late[-HZ // 2 :] = torch.rand(HZ // 2) - 0.5
    new = [musiclm.generate(PROMPT, 1.0, config=config, audio_prompt=Sound(w, HZ))[0][-HZ:] for w in (early, late)]
    assert not torch.equal(new[0], new[1])


def test_the_coarse_wave_leaves_the_fine_stage_out(stack: Stack) -> None:
    (wave,) = stack.musiclm(("semantic", "coarse")).generate(
        PROMPT, 1.7, config=GenerationConfig(return_coarse_wave=True)
    )
    assert wave.shape == (round(1.7 * HZ),)


def test_a_stage_that_is_not_loaded_is_named(stack: Stack) -> None:
    with pytest.raises(UserError, match="the fine stage is not loaded"):
        stack.musiclm(("semantic", "coarse")).generate(PROMPT, 0.5)


def test_regeneration_from_the_fine_stage_runs_it_whatever_the_config_says(musiclm: MusicLM) -> None:
    sound, coarse_only = tune(0.9), GenerationConfig(return_coarse_wave=True)
    (expected,) = musiclm.vary(sound, "fine")
    assert torch.equal(*musiclm.vary(sound, "fine", config=coarse_only), expected)


def test_regeneration_with_guidance_needs_stages_trained_for_it(musiclm: MusicLM) -> None:
    with pytest.raises(UserError, match="condition_dropout"):
        list(musiclm.vary(tune(0.5), "coarse", config=GenerationConfig(cfg_scale=2.0)))
    # but not stages that do not run
    assert list(musiclm.vary(tune(0.5), "coarse", config=GenerationConfig(cfg_scale=(2.0, 1.0, 1.0))))
    with pytest.raises(UserError, match="the semantic stage was trained without condition_dropout"):
        musiclm.vary(tune(0.5), "semantic", config=GenerationConfig(cfg_scale=(2.0, 1.0, 1.0)))


@pytest.mark.parametrize("first_stage", ["coarse", "fine"])
@pytest.mark.parametrize("seconds", [0.4, 1.0, 2.72])
def test_regeneration_keeps_the_length(musiclm: MusicLM, first_stage: str, seconds: float) -> None:
    (wave,) = musiclm.vary(tune(seconds), first_stage)
    assert wave.shape == (round(seconds * HZ),)
    (again,) = musiclm.vary(tune(seconds), first_stage)
    assert torch.equal(wave, again)


@pytest.mark.parametrize(
    ("prompts", "duration", "samples"),
    [("", 1.0, 1), (" ", 1.0, 1), ("x", 0.0, 1), ("x", -1.0, 1), ("x", 1.0, 0), ([], 1.0, 1)],
)
def test_impossible_requests_are_refused(
    musiclm: MusicLM, prompts: str | list[str], duration: float, samples: int
) -> None:
    with pytest.raises(UserError):
        musiclm.generate(prompts, duration, samples)


def test_similarity_is_a_cosine(musiclm: MusicLM) -> None:
    sound = tune(5.0)
    waves = torch.stack([tune(0.5, HZ).wave, -0.5 * tune(0.5, HZ).wave])
    scores = ClapScorer(musiclm).score([PROMPT, PROMPT], waves)
    assert scores.shape == (2,)
    assert scores.abs().max() <= 1.0
    assert float(musiclm.embed_sound(sound).norm()) == pytest.approx(1.0, abs=1e-5)
    assert float(musiclm.embed_sound(sound) @ musiclm.embed_sound(sound)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 5.3])
def test_waves_are_embedded_together_as_one_by_one(musiclm: MusicLM, seconds: float) -> None:
    waves = torch.stack([tune(seconds, HZ).wave * scale for scale in (1.0, 0.3, -0.7)])
    alone = torch.stack([musiclm.embed_sound(Sound(wave, HZ)) for wave in waves])
    torch.testing.assert_close(musiclm.embed_waves(waves), alone, atol=1e-3, rtol=0)  # int16 rounds otherwise


def test_a_text_is_embedded_once(musiclm: MusicLM, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[str] = []
    original = musiclm.tokenizer.clap.embed_text
    monkeypatch.setattr(musiclm.tokenizer.clap, "embed_text", lambda texts: embedded.extend(texts) or original(texts))
    first = musiclm.embed_text(["one", "two", "one"])
    assert torch.equal(first[0], first[2])
    torch.testing.assert_close(musiclm.embed_text(["two"])[0], first[1])
    assert embedded == ["one", "two"]


def test_a_long_piece_is_made_in_windows(musiclm: MusicLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the music, no stage holds more than its window at a time."""
    held: dict[str, set[int]] = {}
    make = FlatGenerator.generate

    def watched(self: FlatGenerator, conditioning: list, context: torch.Tensor, frames: int, *rest: object) -> object:
        held.setdefault(self.predicted.name, set()).add(context.shape[1] + frames)
        return make(self, conditioning, context, frames, *rest)

    monkeypatch.setattr(FlatGenerator, "generate", watched)
    musiclm.generate(PROMPT, 9.0)
    config = musiclm.config
    rates = {"semantic": config.hubert_kmeans_cfg.output_hz, "coarse": config.encodec_cfg.output_hz}
    assert max(held["semantic"]) == round(config.window_seconds("semantic") * rates["semantic"]) - 1
    assert max(held["coarse"]) == round(config.window_seconds("coarse") * rates["coarse"])
    assert max(held["fine"]) == round(config.window_seconds("fine") * rates["coarse"])
    assert len(held) == 3
