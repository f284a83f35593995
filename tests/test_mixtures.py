"""Prompts of texts and sounds, and mixtures of them: their embeddings, names, files and limits."""

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from helpers.small_stack import Stack
from hypothesis import given, settings
from hypothesis import strategies as st
from test_musiclm import HZ, tune

from open_musiclm import GenerationConfig, Mixture, MusicLM, Prompt
from open_musiclm.audio import Sound, read_sound, write_wave
from open_musiclm.cli.prompts import add_prompt_arguments, no_prompt, prompts_from
from open_musiclm.errors import UserError, UserNotice
from open_musiclm.generation.generate_files import generate_files, lines_of
from open_musiclm.generation.prompts.prompt_checks import check_prompts
from open_musiclm.generation.scorers import ClapScorer
from open_musiclm.generation.search import best_of_n

COARSE = GenerationConfig(return_coarse_wave=True, duration=0.4)
PIANO, CHOIR = "slow piano", "a choir at 5:00"


@pytest.fixture(scope="module")
def musiclm(stack: Stack) -> MusicLM:
    return stack.musiclm(("semantic", "coarse"))


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("styles") / "tone.wav"
    write_wave(path, tune(1.0, HZ).wave, HZ)
    return path


def one(musiclm: MusicLM, prompt: str | Prompt | Mixture) -> torch.Tensor:
    (wave,) = musiclm.generate(prompt, config=COARSE)
    return wave


def test_a_mixture_is_the_weighted_mean_made_of_length_1(musiclm: MusicLM, tone: Path) -> None:
    mixture = Mixture([Prompt(PIANO, weight=3), CHOIR, Prompt(audio=tone, weight=0.5)])
    text, other = musiclm.embed_text([PIANO, CHOIR])
    expected = 3 * text + other + 0.5 * musiclm.embed_sound(read_sound(tone))
    (found,) = musiclm.embed_prompts([mixture])
    torch.testing.assert_close(found, expected / expected.norm(), atol=1e-6, rtol=0)
    assert torch.equal(musiclm.clap_tokens([mixture])[0], musiclm.tokenizer.quantizer.encode(found[None]))


def test_text_and_sound_of_a_prompt_count_alike(musiclm: MusicLM, tone: Path) -> None:
    both = musiclm.embed_prompts([Prompt(PIANO, tone)])
    torch.testing.assert_close(both, musiclm.embed_prompts([Mixture([PIANO, Prompt(audio=tone)])]))
    sound = musiclm.embed_prompts([Prompt(audio=read_sound(tone))])[0]
    assert torch.equal(sound, musiclm.embed_sound(read_sound(tone)))
    within = musiclm.embed_prompts([Mixture([Prompt(PIANO, tone, 2), CHOIR])])[0]
    expected = 2 * both[0] + musiclm.embed_text([CHOIR])[0]
    torch.testing.assert_close(within, expected / expected.norm(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "same",
    [
        Prompt(PIANO),
        Prompt(PIANO, weight=7),
        Mixture([PIANO]),
        Mixture([Prompt(PIANO), Prompt(CHOIR, weight=0)]),
        Mixture([Prompt(CHOIR, weight=0.0), Prompt(PIANO, weight=0.3)]),
        Mixture([Mixture([PIANO, Prompt(CHOIR, weight=0)], weight=0.5), PIANO]),
    ],
)
def test_what_is_a_single_text_sounds_as_that_text_bit_by_bit(musiclm: MusicLM, same: Prompt | Mixture) -> None:
    assert check_prompts(same) == [PIANO]
    assert torch.equal(one(musiclm, same), one(musiclm, PIANO))


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)))
def test_the_order_of_a_mixture_does_not_matter(musiclm: MusicLM, order: list[int]) -> None:
    parts = [Prompt(text, weight=weight) for text, weight in zip("abcab", (0.1, 0.7, 1.3, 0.2, 1e-3), strict=True)]
    (right,), (left,) = check_prompts(Mixture(parts)), check_prompts(Mixture([parts[place] for place in order]))
    assert right == left
    assert torch.equal(musiclm.embed_prompts([right]), musiclm.embed_prompts([left]))


def test_in_any_order_a_mixture_sounds_the_same_bit_by_bit(musiclm: MusicLM, tone: Path) -> None:
    parts = [PIANO, Prompt(CHOIR, weight=2), Prompt(audio=tone)]
    mixed = one(musiclm, Mixture(parts))
    assert torch.equal(mixed, one(musiclm, Mixture(parts[::-1])))
    assert not torch.equal(mixed, one(musiclm, Mixture(parts[:2])))


def test_a_mixture_is_one_prompt_among_others(musiclm: MusicLM) -> None:
    mixture = Mixture([PIANO, Prompt(CHOIR, weight=2)])
    waves = musiclm.generate([PIANO, mixture, CHOIR], num_samples=2, config=COARSE)
    assert len(waves) == 6
    for wave, other in zip(waves[:2] + waves[4:], musiclm.generate([PIANO, CHOIR], 0.4, 2, COARSE), strict=True):
        torch.testing.assert_close(wave, other, atol=1e-5, rtol=0)
    torch.testing.assert_close(waves[2], one(musiclm, mixture), atol=1e-5, rtol=0)
    assert (waves[2] - waves[0]).abs().max() > 2e-5


def test_samples_are_scored_against_the_mixture(musiclm: MusicLM) -> None:
    mixture = Mixture([PIANO, Prompt(CHOIR, weight=2)])
    ((best,),) = best_of_n(musiclm, [mixture], ClapScorer(musiclm), COARSE.updated({"num_samples": 1}))
    of_mixture, of_text = musiclm.embed_prompts([mixture, CHOIR]) @ musiclm.embed_waves(best.wave[None])[0]
    assert best.score == pytest.approx(float(of_mixture), abs=1e-5)
    assert best.score != pytest.approx(float(of_text), abs=1e-3)


def test_files_tell_parts_and_weights(stack: Stack, tone: Path, tmp_path: Path) -> None:
    model = stack.musiclm(("semantic", "coarse"))
    model.generation_config = COARSE.updated({"num_samples": 1})
    mixture = Mixture([Prompt(CHOIR, weight=2), Prompt(PIANO, tone), Prompt("left out", weight=0)])
    written = [*generate_files(model, [PIANO, mixture, Prompt(audio=read_sound(tone))], tmp_path, {})]
    stories = [json.loads(found[0].path.with_suffix(".json").read_text()) for found in written]
    assert "parts" not in stories[0]
    assert stories[1]["parts"] == [
        {"text": CHOIR, "weight": 2.0},
        {"text": PIANO, "audio": str(tone), "weight": 1.0},
    ]
    name = stories[1]["prompt"]
    assert name.startswith("a choir at 5:00:2 + slow piano with tone.wav ")
    assert next(lines_of(written[1])) == f"{name!r}:"
    assert written[1][0].path.name.startswith("a_choir_at_5_00_2_slow_piano_with_tone_wav_")
    assert stories[2]["prompt"].startswith("sound ")


def test_a_silent_style_sound_is_refused(tmp_path: Path) -> None:
    silent = Sound(torch.zeros(HZ), HZ)
    with pytest.raises(UserError, match=r"^prompt: audio: silent, so it has no style; give another sound$"):
        check_prompts(Prompt("slow piano", silent))
    write_wave(tmp_path / "silent.wav", silent.wave, HZ)
    with pytest.raises(UserError, match=r"^style sound .*silent\.wav: silent"):
        check_prompts(Mixture(["slow piano", Prompt(audio=tmp_path / "silent.wav")]))


def test_a_style_sound_that_is_too_short_to_have_a_style_is_told() -> None:
    with pytest.warns(UserNotice, match=r"^prompt: audio: only 0\.02 s long; its style is uncertain below 0\.5 s$"):
        (prompt,) = check_prompts(Prompt(audio=tune(0.02, HZ)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_prompts(prompt)  # once
        check_prompts(Prompt(audio=tune(0.5, HZ)))


def test_different_sounds_of_one_name_differ(tmp_path: Path) -> None:
    names = set()
    for folder, seconds in (("a", 0.5), ("b", 0.6)):
        (tmp_path / folder).mkdir()
        write_wave(tmp_path / folder / "x.wav", tune(seconds, HZ).wave, HZ)
        names.add(str(check_prompts(Prompt(audio=tmp_path / folder / "x.wav"))[0]))
    assert len(names) == 2


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(), "neither text nor audio"),
        (Prompt(" "), "empty"),
        (Prompt(PIANO, weight=0), "its weight is 0"),
        (Mixture([Prompt(PIANO, weight=0), Prompt(CHOIR, weight=0)]), "all weights are 0"),
        (Mixture([Prompt(PIANO, weight=-1), CHOIR]), r"'slow piano': weight -1"),
        (Mixture([Prompt(PIANO, weight=float("nan")), CHOIR]), "weight nan"),
        (Mixture([Prompt(PIANO, weight=float("inf")), CHOIR]), "weight inf"),
        (Mixture([PIANO], weight=-1), "weight -1"),
        (Mixture([]), "of 0 prompts"),
        (Mixture([PIANO] * 101), "of 101 prompts"),
        (Prompt(audio="nowhere.wav"), r"nowhere\.wav"),
    ],
)
def test_prompts_that_ask_for_nothing_are_refused(prompt: Prompt | Mixture, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_prompts(prompt)


def test_parts_that_cancel_each_other_are_refused(musiclm: MusicLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(musiclm.prompt_embedder, "_embed_sound", lambda sound: -musiclm.embed_text([PIANO])[0])
    with pytest.raises(UserError, match="cancel each other"):
        musiclm.embed_prompts([Prompt(PIANO, tune(0.5))])


def asked(*words: str, otherwise: Sequence[str] = ()) -> list:
    parser = argparse.ArgumentParser()
    parser.add_argument("prompts", nargs="*")
    add_prompt_arguments(parser)
    arguments = parser.parse_args(words)
    return prompts_from(arguments, arguments.prompts, otherwise)


def test_plain_prompts_stay_plain_whatever_they_end_with() -> None:
    assert asked("wake up at 5:00", "choir:2") == ["wake up at 5:00", "choir:2"]


def test_a_command_line_mixes(tone: Path) -> None:
    assert asked("slow piano:2", "wake up: now", "choir:1", "flute:0", "--mix") == [
        Mixture((Prompt("choir"), Prompt("slow piano", weight=2.0), Prompt("wake up: now")))
    ]
    assert asked("slow piano:2", "--mix") == [PIANO]
    (style,) = asked("--style_audio", str(tone))
    assert isinstance(style, Prompt)
    assert style.text is None
    first, second = asked(PIANO, CHOIR, "--style_audio", f"{tone}:0.5")
    assert str(first).startswith("slow piano:1 + tone.wav ")
    assert str(second).startswith("a choir at 5:00:1 + tone.wav ")
    assert [part.weight for part in first.parts] == [1.0, 0.5]


def test_a_file_whose_name_ends_with_a_number_is_that_file(tone: Path) -> None:
    colon = tone.rename(tone.with_name("a:7"))
    (found,) = asked("--style_audio", str(colon))
    colon.rename(tone)
    assert str(found).startswith("a:7 ")


def test_other_prompts_only_if_there_is_none(tone: Path) -> None:
    assert asked(otherwise=[PIANO, CHOIR]) == [PIANO, CHOIR]
    assert asked("flute", otherwise=[PIANO]) == ["flute"]
    (style,) = asked("--style_audio", str(tone), otherwise=[PIANO, CHOIR])
    assert isinstance(style, Prompt)
    assert style.text is None
    assert asked("--mix", otherwise=[PIANO, CHOIR]) == []


@pytest.mark.parametrize("words", [[], ["--mix"]])
def test_of_nothing_there_is_no_prompt(words: list[str]) -> None:
    assert asked(*words) == []
    with pytest.raises(UserError, match="no prompt"):
        no_prompt()
