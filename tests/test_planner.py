"""Windows along time: counts, alignment and coverage for any duration."""

from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from open_musiclm.config import (
    ClapRvqConfig,
    CoarseConfig,
    EncodecConfig,
    FineConfig,
    GlobalConfig,
    HubertKmeansConfig,
    ModelConfig,
    SemanticConfig,
)
from open_musiclm.generation.planner import TickGrid, Window, plan_steps, plan_windows
from open_musiclm.generation.tracks import GeneratedTrack
from open_musiclm.tokens import TokenStream, token_streams


def config(semantic_hz: int = 50, sample_hz: int = 16000) -> ModelConfig:
    return ModelConfig(
        global_cfg=GlobalConfig(),
        clap_rvq_cfg=ClapRvqConfig(),
        hubert_kmeans_cfg=HubertKmeansConfig(output_hz=semantic_hz, target_sample_hz=sample_hz),
        encodec_cfg=EncodecConfig(),
        semantic_cfg=SemanticConfig(),
        coarse_cfg=CoarseConfig(),
        fine_cfg=FineConfig(),
    )


def frames(stream: str, seconds: float, model: ModelConfig) -> int:
    grid = TickGrid(model.token_grid)
    return grid.frames(token_streams(model)[stream], grid.ticks(seconds))


def test_token_counts_of_windows() -> None:
    here = config()
    assert [frames("semantic", s, here) for s in (10, 4, 2, 1)] == [499, 199, 99, 49]
    assert [frames("coarse", s, here) for s in (10, 4, 2, 1)] == [750, 300, 150, 75]


def test_rates_follow_the_config() -> None:
    other = config(75, 24000)
    assert [frames("semantic", s, other) for s in (10, 4)] == [749, 299]


@given(prompt=st.integers(0, 300), new=st.integers(0, 500), window=st.integers(2, 250), data=st.data())
def test_steps_cover_everything_once_with_all_the_context_there_is(prompt, new, window, data) -> None:
    step = data.draw(st.integers(1, window))
    reached = prompt
    for planned in plan_steps(prompt, prompt + new, window, step):
        assert planned.context_end == reached
        assert 0 < planned.end - reached <= step
        assert planned.start == max(planned.end - window, 0) <= reached
        reached = planned.end
    assert reached == prompt + new


@given(
    prompt=st.integers(0, 300),
    new=st.integers(1, 2000),
    window=st.integers(2, 250),
    step=st.integers(1, 250),
)
def test_windows_cover_everything_once(prompt: int, new: int, window: int, step: int) -> None:
    context = window - min(step, window)
    windows = plan_windows(prompt, prompt + new, window, context)
    reached = prompt
    for planned in windows:
        assert planned.context_end == reached
        assert planned.start <= planned.context_end < planned.end
        assert planned.end - planned.start <= window
        assert planned.context_end - planned.start >= min(context, reached)
        # Every window is as long as in training, unless all there is is shorter.
        assert planned.end - planned.start == window or prompt + new < window or prompt < context
        reached = planned.end
    assert reached == prompt + new


@settings(deadline=None)
@given(
    prompt=st.integers(0, 120),
    new=st.integers(1, 400),
    window=st.integers(2, 100),
    asked=st.data(),
)
def test_tokens_stay_aligned_however_many_windows_came_before(
    prompt: int, new: int, window: int, asked: st.DataObject
) -> None:
    """Tokens that are their own time: each window's must be those of its own ticks."""
    grid = TickGrid(Fraction(1, 25))
    for stream in (TokenStream("semantic", 9, 1, 50, 1), TokenStream("coarse", 9, 1, 75)):
        per_tick = stream.frame_hz // 25

        def extend(
            planned: Window, context: torch.Tensor, frames: int, per_tick: int = per_tick, stream: TokenStream = stream
        ) -> torch.Tensor:
            first = per_tick * planned.start
            assert context.flatten().tolist() == list(range(first, first + context.shape[1]))
            assert context.shape[1] + frames == grid.frames(stream, planned.end - planned.start)
            begin = first + context.shape[1]
            return torch.arange(begin, begin + frames).view(1, -1, 1)

        total = prompt + new
        prompt_tokens = torch.arange(grid.frames(stream, prompt)).view(1, -1, 1)
        windows = plan_windows(prompt, total, window, window // 2)
        track = GeneratedTrack(stream, grid, windows, prompt_tokens, extend)
        start = asked.draw(st.integers(0, total - 1))
        end = asked.draw(st.integers(start + 1, total))
        ids = track.tokens(start, end).flatten().tolist()
        assert ids == list(range(per_tick * start, per_tick * start + grid.frames(stream, end - start)))
        whole = track.tokens(0, total).flatten().tolist()
        assert whole == list(range(grid.frames(stream, total)))


def test_nothing_is_generated_before_it_is_asked_for() -> None:
    made: list[Window] = []

    def extend(window: Window, context: torch.Tensor, steps: int) -> torch.Tensor:
        made.append(window)
        return torch.zeros(1, steps, 1, dtype=torch.long)

    windows = plan_windows(0, 100, 20, 10)
    track = GeneratedTrack(
        TokenStream("coarse", 9, 1, 75),
        TickGrid(Fraction(1, 25)),
        windows,
        torch.zeros(1, 0, 1, dtype=torch.long),
        extend,
    )
    track.tokens(0, 20)
    assert made == windows[:1]
    track.tokens(25, 31)
    assert made == windows[:3]


@given(st.floats(0.01, 600))
def test_ticks_hold_the_duration_and_no_more(seconds: float) -> None:
    ticks = TickGrid(config().token_grid).ticks(seconds)
    assert seconds / 0.04 - 1e-6 <= ticks < seconds / 0.04 + 1
