"""Stories: what is asked for changes at its time, the context goes on, and all else is as of plain prompts."""

import json
from pathlib import Path

import pytest
import torch
from helpers.small_stack import Stack, build_stack
from hypothesis import given
from hypothesis import strategies as st
from test_mixtures import CHOIR, PIANO, asked, tone  # noqa: F401 (a fixture)
from test_musiclm import HZ, tune

from open_musiclm import GenerationConfig, Mixture, MusicLM, Prompt, Story
from open_musiclm.errors import UserError
from open_musiclm.generation.decoding.flat_generator import FlatGenerator
from open_musiclm.generation.generate_files import generate_files
from open_musiclm.generation.planner import Window, split_windows
from open_musiclm.generation.prompts.prompt_checks import check_prompts, check_steady_prompts, check_stories
from open_musiclm.generation.search import best_of_n
from open_musiclm.generation.session import GenerationSession, requests_of

COARSE = GenerationConfig(return_coarse_wave=True, duration=3.0)
STORY = Story([(0, PIANO), (1.7, CHOIR)])
FADED = Story([(0, PIANO), (1, CHOIR), (6, PIANO)], crossfade=3.0)


@pytest.fixture(scope="module")
def musiclm(stack: Stack) -> MusicLM:
    return stack.musiclm(("semantic", "coarse"))


def shares(prompt: object) -> dict[str, float]:
    """How much of each text a prompt asks for."""
    if not isinstance(prompt, Mixture):
        return {str(prompt): 1.0}
    total = sum(part.weight for part in prompt.parts)
    return {str(part): pytest.approx(part.weight / total) for part in prompt.parts}


def test_prompts_follow_each_other_at_their_times() -> None:
    assert STORY.steps() == [(0.0, PIANO), (1.7, CHOIR)]
    assert STORY.during(0, 1.7) == PIANO
    assert STORY.during(1.7, 90) == CHOIR
    assert shares(STORY.during(0.7, 3.7)) == {PIANO: pytest.approx(1 / 3), CHOIR: pytest.approx(2 / 3)}


def test_a_crossfade_goes_from_one_to_the_next_second_by_second() -> None:
    steps = FADED.steps()
    assert [start for start, _ in steps] == pytest.approx([0, 1, 2, 3, 4, 6, 7, 8, 9])
    half, sixth = pytest.approx(1 / 2), pytest.approx(1 / 6)
    assert shares(steps[1][1]) == {PIANO: pytest.approx(5 / 6), CHOIR: sixth}
    assert shares(steps[2][1]) == {PIANO: half, CHOIR: half}
    assert shares(steps[3][1]) == {PIANO: sixth, CHOIR: pytest.approx(5 / 6)}
    assert [steps[place][1] for place in (0, 4, 8)] == [PIANO, CHOIR, PIANO]


@given(st.floats(0, 12), st.floats(0.01, 5))
def test_what_a_stretch_asks_for_is_the_sum_of_its_parts(start: float, length: float) -> None:
    middle, end = start + length / 2, start + length

    def seconds(first: float, last: float) -> float:
        prompt = FADED.during(first, last)
        parts = prompt.parts if isinstance(prompt, Mixture) else [Prompt(str(prompt))]
        total = sum(part.weight for part in parts)
        return sum(part.weight for part in parts if str(part) == CHOIR) / total * (last - first)

    assert seconds(start, end) == pytest.approx(seconds(start, middle) + seconds(middle, end), abs=1e-6)


def test_a_story_of_one_prompt_is_that_prompt_bit_by_bit(musiclm: MusicLM) -> None:
    (plain,) = musiclm.generate(PIANO, config=COARSE)
    for story in (Story([(0, PIANO)]), Story([(0, Prompt(PIANO)), (1, PIANO)], 0.5)):
        (told,) = musiclm.generate(story, config=COARSE)
        assert torch.equal(told, plain)


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.04, 0.08])
def test_a_change_in_the_first_moment(musiclm: MusicLM, seconds: float) -> None:
    """A first part that is shorter than a token."""
    (wave,) = musiclm.generate(Story([(0, PIANO), (seconds, CHOIR)]), 1.0, config=COARSE)
    assert wave.shape == (HZ,)
    assert wave.isfinite().all()


def test_windows_are_split_where_something_changes() -> None:
    windows = [Window(0, 0, 10), Window(5, 10, 15)]
    parts = [Window(0, 0, 4), Window(0, 4, 10), Window(5, 10, 12), Window(5, 12, 15)]
    assert split_windows(windows, [12, 0, 4, 4, 10, 15]) == parts


def session_of(musiclm: MusicLM, *steps: tuple[float, str]) -> GenerationSession:
    """A session whose random numbers do not depend on what is asked for."""
    session = musiclm.session(requests_of("a tune", 2), COARSE)
    tokens = musiclm.clap_tokens([prompt for _, prompt in steps])
    session.clap_steps = [(start, one.expand(2, 1, -1)) for (start, _), one in zip(steps, tokens, strict=True)]
    return session


@pytest.mark.parametrize("token_layout", ["flat", "frames"])
def test_the_context_goes_on_where_what_is_asked_for_changes(
    token_layout: str, musiclm: MusicLM, tmp_path: Path
) -> None:
    """One to the same changes nothing, one to something else only what comes after it."""
    if token_layout == "frames":
        musiclm = build_stack(tmp_path, "frames").musiclm(("semantic", "coarse"))
    sessions = [
        session_of(musiclm, *steps)
        for steps in ([(0, PIANO)], [(0, PIANO), (0.3, PIANO), (1.7, PIANO)], [(0, PIANO), (1.8, CHOIR)])
    ]
    tokens = [session.semantic_tokens(session.prompt_tokens(None)) for session in sessions]
    assert torch.equal(tokens[0], tokens[1])
    before = round(1.8 * 50) - 1
    assert torch.equal(tokens[0][:, :before], tokens[2][:, :before])
    assert not torch.equal(tokens[0][:, before:], tokens[2][:, before:])
    coarse = [session.coarse_track(session.prompt_tokens(None)).tokens(0, session.new_ticks) for session in sessions]
    if token_layout == "flat":
        assert torch.equal(coarse[0], coarse[1])
    # in the frames layout the last frames before a change do not know the first after it, as at the end of any window
    before = round(1.8 * 15) - (0 if token_layout == "flat" else 2)
    assert torch.equal(coarse[0][:, :before], coarse[2][:, :before])
    assert not torch.equal(coarse[0][:, before:], coarse[2][:, before:])


def test_every_stage_is_given_what_its_time_asks_for(musiclm: MusicLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds count from the new music on, after an audio prompt too; this model's ticks are 0.2 s long."""
    made: dict[tuple[str, tuple[int, ...]], int] = {}
    original = FlatGenerator.generate

    def watched(self: FlatGenerator, conditioning: list, context: torch.Tensor, frames: int, *rest: object) -> object:
        key = (self.predicted.name, tuple(conditioning[0][0, 0].tolist()))
        made[key] = made.get(key, 0) + frames
        return original(self, conditioning, context, frames, *rest)

    monkeypatch.setattr(FlatGenerator, "generate", watched)
    (wave,) = musiclm.generate(STORY, config=COARSE, audio_prompt=tune(1.0, HZ))
    assert wave.shape == (4 * HZ,)
    piano, choir = (tuple(tokens[0].tolist()) for tokens in musiclm.clap_tokens([PIANO, CHOIR]))
    assert made["semantic", piano] == pytest.approx(1.8 * 50, abs=2)
    assert made["semantic", choir] == pytest.approx((3 - 1.8) * 50, abs=2)
    assert made["coarse", piano] == pytest.approx(1.8 * 15, abs=1)
    assert made["coarse", choir] == pytest.approx((3 - 1.8) * 15, abs=1)


def test_streamed_it_is_the_whole_and_among_others_as_alone(musiclm: MusicLM) -> None:
    other = Story([(0, CHOIR), (1, PIANO)], crossfade=0.5)
    together = musiclm.generate([STORY, PIANO, other], config=COARSE)
    batches: dict[int, list[torch.Tensor]] = {}
    for number, chunk in musiclm.stream([STORY, PIANO, other], config=COARSE):
        batches.setdefault(number, []).append(chunk)
    assert len(batches) == 3  # what changes at other times is not in one batch
    for wave, chunks in zip(together, batches.values(), strict=True):
        assert torch.equal(torch.cat(chunks, dim=1)[0], wave)
    for prompt, wave in zip((STORY, PIANO, other), together, strict=True):
        torch.testing.assert_close(musiclm.generate(prompt, config=COARSE)[0], wave, atol=1e-5, rtol=0)


def test_search_scores_against_all_that_is_asked_for(musiclm: MusicLM) -> None:
    heard: list[dict[str, float]] = []

    class Watching:
        name = "watching"

        def score(self, prompts: list, waves: torch.Tensor) -> torch.Tensor:
            heard.extend(shares(prompt) for prompt in prompts)
            return torch.zeros(len(waves))

    config = COARSE.updated({"num_samples": 1})
    best_of_n(musiclm, [STORY], Watching(), config)
    assert heard == [{PIANO: pytest.approx(1.7 / 3), CHOIR: pytest.approx(1.3 / 3)}]


def test_files_tell_a_story(stack: Stack, tmp_path: Path) -> None:
    model = stack.musiclm(("semantic", "coarse"))
    model.generation_config = COARSE.updated({"num_samples": 1})
    story = Story([(0, PIANO), (1.5, Mixture([PIANO, Prompt(CHOIR, weight=3)]))], 0.25)
    ((written,),) = generate_files(model, [story], tmp_path, {})
    told = json.loads(written.path.with_suffix(".json").read_text())
    assert told["prompt"] == "0:slow piano; 1.5:a choir at 5:00:3 + slow piano:1; crossfade 0.25"
    assert told["crossfade"] == 0.25
    assert told["story"][0] == {"seconds": 0.0, "parts": [{"text": PIANO, "weight": 1.0}]}
    assert [part["weight"] for part in told["story"][1]["parts"]] == [3.0, 1.0]


@pytest.mark.parametrize(
    ("story", "message"),
    [
        (Story([]), "of 0 prompts"),
        (Story([(1, PIANO)]), "begins at 1 s; begin with one at 0"),
        (Story([(0, PIANO), (2, CHOIR), (1, PIANO)]), "1 s comes after 2 s"),
        (Story([(0, PIANO), (0, CHOIR)]), "0 s comes after 0 s"),
        (Story([(0, PIANO), (float("nan"), CHOIR)]), "a time of nan s"),
        (Story([(0, PIANO), (-1, CHOIR)]), "a time of -1 s"),
        (Story([(0, " ")]), "empty"),
        (Story([(0, Prompt(PIANO, weight=0))]), "its weight is 0"),
        (Story([(0, PIANO), (1, CHOIR)], -1), "crossfade of -1 s"),
        (Story([(0, PIANO), (1, CHOIR)], float("inf")), "crossfade of inf s"),
        (Story([(0, PIANO), (1, CHOIR), (2, PIANO)], 1.5), r"a crossfade of 1\.5 s is longer than from 1 to 2 s"),
    ],
)
def test_stories_that_make_no_sense_are_refused(story: Story, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_prompts(story)


def test_a_crossfade_begins_with_the_second_prompt_and_ends_within_the_music() -> None:
    check_prompts(Story([(0, PIANO), (1, CHOIR)], 4))
    check_prompts(Story([(0, PIANO), (1.1, CHOIR), (3.3, PIANO)], 2.2))  # 3.3 - 1.1 is a little less
    (long,) = check_prompts(Story([(0, PIANO), (14, CHOIR)], 10))
    check_stories([long], 24)
    with pytest.raises(UserError, match="a crossfade of 10 s from 14 s on is longer than the duration of 15 s"):
        check_stories([long], 15)


def test_a_story_must_fit_the_music(musiclm: MusicLM) -> None:
    message = r"its last prompt begins at 1\.7 s, beyond the duration of 1\.5 s"
    with pytest.raises(UserError, match=message):
        musiclm.stream(STORY, 1.5, config=COARSE)
    with pytest.raises(UserError, match=message):
        musiclm.session(requests_of(STORY, 1), COARSE.updated({"duration": 1.5}))
    with pytest.raises(UserError, match="a story changes over time"):
        check_steady_prompts([PIANO, STORY])


def test_a_command_line_tells_a_story(tone: Path) -> None:  # noqa: F811
    assert asked("--story", "0:slow piano; 1.7: a choir at 5:00") == [Story(((0.0, PIANO), (1.7, CHOIR)))]
    assert asked("--story", "0:slow piano;2:choir", "--crossfade", "1")[0].crossfade == 1.0
    (story,) = asked("--story", "0:slow piano;2:choir", "--style_audio", str(tone))
    assert [str(prompt).split(":1 + tone.wav ")[0] for _, prompt in story.parts] == ["slow piano", "choir"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([PIANO, "--story", "0:a"], "--story: contains all prompts"),
        (["--mix", "--story", "0:a"], "--story: contains all prompts"),
        ([PIANO, "--crossfade", "1"], "--crossfade: needs --story"),
        (["--story", "0:"], "empty"),
    ],
)
def test_arguments_that_exclude_each_other_are_told(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked(*words)


@pytest.mark.parametrize("words", ["", "a", "0:a;", "x:a", ";", "0:a; b"])
def test_a_story_is_times_and_prompts(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        asked("--story", words)
    assert "is not SECONDS:PROMPT" in capsys.readouterr().err
