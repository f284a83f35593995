"""Windows along time: counts, alignment and coverage for any duration."""

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
from open_musiclm.generation.planner import (
    GeneratedTrack,
    Rate,
    Window,
    acoustic_rate,
    plan_steps,
    plan_windows,
    semantic_rate,
    ticks_in,
)


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


def test_token_counts_of_windows() -> None:
    here = config()
    assert [semantic_rate(here).steps(ticks_in(s, here)) for s in (10, 4, 2, 1)] == [499, 199, 99, 49]
    assert [acoustic_rate(here).steps(ticks_in(s, here)) for s in (10, 4, 2, 1)] == [750, 300, 150, 75]


def test_rates_follow_the_config() -> None:
    other = config(75, 24000)
    assert [semantic_rate(other).steps(ticks_in(s, other)) for s in (10, 4)] == [749, 299]


@given(known=st.integers(0, 300), new=st.integers(0, 500), window=st.integers(2, 250), data=st.data())
def test_steps_cover_everything_once_with_all_the_context_there_is(known, new, window, data) -> None:
    step = data.draw(st.integers(1, window))
    reached = known
    for planned in plan_steps(known, known + new, window, step):
        assert planned.known == reached
        assert 0 < planned.end - reached <= step
        assert planned.start == max(planned.end - window, 0) <= reached
        reached = planned.end
    assert reached == known + new


@given(
    known=st.integers(0, 300),
    new=st.integers(1, 2000),
    window=st.integers(2, 250),
    step=st.integers(1, 250),
)
def test_windows_cover_everything_once(known: int, new: int, window: int, step: int) -> None:
    context = window - min(step, window)
    windows = plan_windows(known, known + new, window, context)
    reached = known
    for planned in windows:
        assert planned.known == reached
        assert planned.start <= planned.known < planned.end
        assert planned.end - planned.start <= window
        assert planned.known - planned.start >= min(context, reached)
        # Every window is as long as in training, unless all there is is shorter.
        assert planned.end - planned.start == window or known + new < window or known < context
        reached = planned.end
    assert reached == known + new


@settings(deadline=None)
@given(
    known=st.integers(0, 120),
    new=st.integers(1, 400),
    window=st.integers(2, 100),
    asked=st.data(),
)
def test_tokens_stay_aligned_however_many_windows_came_before(
    known: int, new: int, window: int, asked: st.DataObject
) -> None:
    """Tokens that are their own time: each window's must be those of its own ticks."""
    for rate in (Rate(2, 1), Rate(3, 0)):

        def extend(planned: Window, context: torch.Tensor, steps: int, rate: Rate = rate) -> torch.Tensor:
            first = rate.per_tick * planned.start
            assert context.flatten().tolist() == list(range(first, first + context.shape[1]))
            assert context.shape[1] + steps == rate.steps(planned.end - planned.start)
            begin = first + context.shape[1]
            return torch.arange(begin, begin + steps).view(1, -1, 1)

        total = known + new
        known_ids = torch.arange(rate.steps(known)).view(1, -1, 1)
        windows = plan_windows(known, total, window, window // 2)
        track = GeneratedTrack(rate, windows, known_ids, extend)
        start = asked.draw(st.integers(0, total - 1))
        end = asked.draw(st.integers(start + 1, total))
        ids = track.between(start, end).flatten().tolist()
        assert ids == list(range(rate.per_tick * start, rate.per_tick * start + rate.steps(end - start)))
        whole = track.between(0, total).flatten().tolist()
        assert whole == list(range(rate.steps(total)))


def test_nothing_is_generated_before_it_is_asked_for() -> None:
    made: list[Window] = []

    def extend(window: Window, context: torch.Tensor, steps: int) -> torch.Tensor:
        made.append(window)
        return torch.zeros(1, steps, 1, dtype=torch.long)

    windows = plan_windows(0, 100, 20, 10)
    track = GeneratedTrack(Rate(3, 0), windows, torch.zeros(1, 0, 1, dtype=torch.long), extend)
    track.between(0, 20)
    assert made == windows[:1]
    track.between(25, 31)
    assert made == windows[:3]


@given(st.floats(0.01, 600))
def test_ticks_hold_the_duration_and_no_more(seconds: float) -> None:
    ticks = ticks_in(seconds, config())
    assert seconds / 0.04 - 1e-6 <= ticks < seconds / 0.04 + 1
