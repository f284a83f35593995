"""Drafts that compete: who goes on, and what is left of them."""

import pytest
import torch
from helpers.small_stack import Stack
from hypothesis import given, settings
from hypothesis import strategies as st
from test_musiclm import HZ, PROMPT, tune

from open_musiclm.errors import UserError
from open_musiclm.generation.musiclm import MusicLM
from open_musiclm.generation.search import best_sketches, compete, survivors
from open_musiclm.generation.session import Options, Piece, Progress, rows_of

PROMPTS = [PROMPT, "fast violin"]
DRAFTS = 4


@pytest.fixture(scope="module")
def musiclm(stack: Stack) -> MusicLM:
    return stack.musiclm()


@given(st.integers(1, 4), st.integers(1, 12), st.data())
@settings(deadline=None)
def test_the_closest_of_each_prompt_go_on(prompts: int, drafts: int, data: st.DataObject) -> None:
    surviving = data.draw(st.integers(1, drafts))
    wanted = data.draw(st.integers(surviving, 2 * drafts))
    ranks = torch.tensor([data.draw(st.permutations(range(drafts))) for _ in range(prompts)])
    rows = survivors(ranks.float(), surviving, wanted).unflatten(0, (prompts, wanted))
    for prompt in range(prompts):
        places = rows[prompt] - prompt * drafts
        best = sorted(range(drafts), key=lambda draft: -int(ranks[prompt, draft]))[:surviving]
        assert places.tolist() == [best[place % surviving] for place in range(wanted)]


def test_one_draft_is_the_sample(musiclm: MusicLM) -> None:
    """As long as one semantic window holds it: later windows see more of what is before them."""
    waves = musiclm.generate_best(PROMPTS, 1.9, num_samples=2, num_drafts=1)
    expected = musiclm.generate(PROMPTS, 1.9, num_samples=2)
    assert_same(waves, expected)
    assert_different(waves[0], waves[1])


def test_the_draft_that_is_always_closest_is_as_if_it_were_alone(musiclm: MusicLM) -> None:
    favourites = torch.tensor([0.0, 1.0, 3.0, 2.0, 3.0, 0.0, 1.0, 2.0])  # of each prompt's four
    left, codes = competed(musiclm, lambda last: favourites)
    assert left == [2, 4]
    assert torch.equal(codes, undisturbed(musiclm)[left])


def test_a_late_winner_goes_on_from_an_early_one(musiclm: MusicLM) -> None:
    early, late = torch.tensor([1.0, 0.0, 0.0, 0.0] * 2), torch.tensor([0.0, 0.0, 0.0, 1.0] * 2)
    left, codes = competed(musiclm, lambda last: late if last else early)
    assert left == [3, 7]
    alone, half = undisturbed(musiclm), codes.shape[1] // 2
    assert torch.equal(codes[:, :half], alone[[0, 4], :half])
    assert not torch.equal(codes, alone[[0, 4]])
    assert not torch.equal(codes[:, :half], alone[left, :half])


def test_the_sketches_that_promise_most_are_what_drafts_are_made_of(musiclm: MusicLM) -> None:
    piece, told = some_drafts(musiclm), list[torch.Tensor]()

    def promise(semantic: torch.Tensor) -> torch.Tensor:
        told.append(semantic)
        return torch.tensor([0.0, 3.0, 1.0, 2.0, 0.0, 1.0, 2.0, 3.0])

    known = piece.known(None)
    whole = piece.sketches(known)
    sketches = best_sketches(piece, known, DRAFTS, 2, promise)
    assert torch.equal(sketches, whole[[1, 1, 7, 7]])
    assert torch.equal(told[0], whole[..., 0])
    some = best_sketches(piece, known, DRAFTS, 6, promise)
    assert torch.equal(some, whole[[1, 3, 1, 3, 1, 3, 7, 6, 7, 6, 7, 6]])


def test_drafts_are_made_of_the_sketches_they_are_given(musiclm: MusicLM) -> None:
    """Drafts whose sketches are the semantic tokens that they would have made make the same coarse ones."""
    piece = some_drafts(musiclm)
    semantic = piece.drafts(piece.known(None), None)[0].between(0, piece.new_ticks)
    favourites = torch.tensor([0.0, 1.0, 3.0, 2.0, 3.0, 0.0, 1.0, 2.0])
    left, codes = competed(musiclm, lambda last: favourites, semantic)
    assert left == [2, 4]
    assert torch.equal(codes, undisturbed(musiclm)[left])
    _, others = competed(musiclm, lambda last: favourites, semantic.roll(1, 0))
    assert not torch.equal(others, codes)


def competed(musiclm: MusicLM, closeness, sketches=None):
    """The rows that `compete` leaves, and their coarse tokens; the closeness by whether a window is the last."""
    piece = some_drafts(musiclm)
    windows = len(piece.drafts(piece.known(None), None)[1].ends())
    heard: list[int] = []

    def close(waves: torch.Tensor) -> torch.Tensor:
        heard.append(waves.shape[1])
        return closeness(len(heard) == windows)

    left, coarse = compete(piece, piece.known(None), DRAFTS, close, sketches)
    return left, coarse.between(0, piece.new_ticks)


def undisturbed(musiclm: MusicLM) -> torch.Tensor:
    """The coarse tokens of all drafts where none takes another's place."""
    piece = some_drafts(musiclm)
    return piece.drafts(piece.known(None), None)[1].between(0, piece.new_ticks)


def some_drafts(musiclm: MusicLM) -> Piece:
    rows = rows_of(PROMPTS, DRAFTS)
    clap_ids = musiclm.clap_ids_of_text([row.prompt for row in rows])
    return Piece(musiclm.parts, rows, clap_ids, 2.48, Options(), Progress())


def test_of_a_single_window_the_closest_is_left(musiclm: MusicLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """CLAP's random weights hardly tell these waves apart, so that an ear for their mean takes its place."""
    liked = musiclm.tokenizer.clap.embed_text(PROMPTS).sum(dim=0)
    coarse_only = Options(coarse_wave_only=True)
    samples = musiclm.generate(PROMPTS, 1.0, DRAFTS, coarse_only)
    usual = samples[0].double().mean()
    monkeypatch.setattr(musiclm.listener, "embed_sound", lambda sound: liked * (sound.wave.double().mean() - usual))
    waves = musiclm.generate_best(PROMPTS, 1.0, 1, DRAFTS, coarse_only)
    for place in range(len(PROMPTS)):
        own = samples[DRAFTS * place : DRAFTS * (place + 1)]
        closest, second, *_ = sorted(own, key=lambda wave: float(wave.double().mean()), reverse=True)
        assert_same([waves[place]], [closest])
        assert_different(waves[place], second)


def test_samples_compete_apart(musiclm: MusicLM) -> None:
    together = musiclm.generate_best(PROMPTS, 1.5, 2, 2, Options(max_batch_size=8, coarse_wave_only=True))
    in_batches = musiclm.generate_best(PROMPTS, 1.5, 2, 2, Options(max_batch_size=3, coarse_wave_only=True))
    assert_same(together, in_batches)
    assert_different(together[0], together[1])


def assert_same(waves: list[torch.Tensor], others: list[torch.Tensor]) -> None:
    for left, right in zip(waves, others, strict=True):
        torch.testing.assert_close(left, right, atol=2e-6, rtol=0)


def assert_different(wave: torch.Tensor, other: torch.Tensor) -> None:
    """Waves of other tokens: this codec's random weights tell them apart by little, but by more than rounding."""
    assert (wave - other).abs().max() > 2e-5


def test_drafts_go_on_from_a_given_sound(musiclm: MusicLM) -> None:
    given, seconds = tune(1.7), 1.3
    waves = musiclm.generate_best(PROMPT, seconds, 2, 2, given=given)
    plain = musiclm.generate(PROMPT, seconds, given=given)[0]
    before = len(plain) - round(seconds * HZ)
    for wave in waves:
        assert wave.shape == plain.shape
        assert torch.equal(wave[:before], plain[:before])
    assert not torch.equal(waves[0][before:], waves[1][before:])


@pytest.mark.parametrize("drafts", [0, 17])
def test_drafts_that_do_not_fit_are_refused(musiclm: MusicLM, drafts: int) -> None:
    with pytest.raises(UserError, match=f"num_drafts {drafts}"):
        musiclm.generate_best(PROMPT, 1.0, 1, drafts)
