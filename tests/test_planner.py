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
from open_musiclm.generation.decoding.sampling import Sampling
from open_musiclm.generation.decoding.stage_generator import StageGenerator
from open_musiclm.generation.planner import TickGrid, Window, advance, plan_windows
from open_musiclm.generation.progress import Progress
from open_musiclm.generation.tracks import ClapTrack, EncodedTrack, GeneratedTrack, StageInputs
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


class TimeGenerator(StageGenerator[None]):
    """Makes tokens that are their own time, and checks that it is asked for those that follow its context."""

    name = "coarse"

    def __init__(self, stream: TokenStream) -> None:
        self.predicted = stream
        self.windows: list[tuple[int, int]] = []

    def track(self, windows: list[Window], prompt_tokens: torch.Tensor) -> GeneratedTrack:
        """A track whose source is the start of each window."""
        source = EncodedTrack(lambda start, end: torch.tensor([[[start]]]))
        inputs = StageInputs(Sampling(), [], ClapTrack.constant(torch.zeros(1, 1, 1, dtype=torch.long)), source, 1)
        return GeneratedTrack(self, inputs, GRID, windows, prompt_tokens, Progress())

    def empty_state(self, batch: int, rows: int, capacity: int) -> None:
        raise AssertionError("nothing is decoded here")

    def decode_next(self, state: None, sampling: Sampling) -> None:
        raise AssertionError("nothing is decoded here")

    def generate(self, conditioning, context, frames, sampling, rngs, advanced, negative=None) -> torch.Tensor:
        start = int(conditioning[1])
        first = GRID.first_frame(self.predicted, start)
        assert context.flatten().tolist() == list(range(first, first + context.shape[1]))
        begin = first + context.shape[1]
        self.windows.append((start, context.shape[1] + frames))
        return torch.arange(begin, begin + frames).view(1, -1, 1)


GRID = TickGrid(Fraction(1, 25))


@settings(deadline=None)
@given(
    prompt=st.integers(0, 120),
    new=st.integers(1, 400),
    window=st.integers(2, 100),
    data=st.data(),
)
def test_tokens_stay_aligned_however_many_windows_came_before(
    prompt: int, new: int, window: int, data: st.DataObject
) -> None:
    step = advance("semantic", window, data.draw(st.floats(0.001, 0.999)))
    for stream in (TokenStream("semantic", 9, 1, 50, 1), TokenStream("coarse", 9, 1, 75)):
        per_tick, total = stream.frame_hz // 25, prompt + new
        windows = plan_windows(prompt, total, window, window - step)
        generator = TimeGenerator(stream)
        track = generator.track(windows, torch.arange(GRID.frames(stream, prompt)).view(1, -1, 1))
        start = data.draw(st.integers(0, total - 1))
        end = data.draw(st.integers(start + 1, total))
        ids = track.tokens(start, end).flatten().tolist()
        assert ids == list(range(per_tick * start, per_tick * start + GRID.frames(stream, end - start)))
        assert track.tokens(0, total).flatten().tolist() == list(range(GRID.frames(stream, total)))
        assert generator.windows == [(w.start, GRID.frames(stream, w.end - w.start)) for w in windows]


@given(window=st.integers(2, 1000), share=st.floats(1e-6, 1, exclude_max=True))
def test_a_share_of_the_window_is_advanced_and_some_context_stays(window: int, share: float) -> None:
    assert 1 <= advance("semantic", window, share) <= max(share * window + 1e-6, 1)
    assert [advance(stage, 250) for stage in ("semantic", "coarse", "fine")] == [125, 125, 250]
    assert advance("semantic", 100, 0.29) == 29


def test_nothing_is_generated_before_it_is_needed() -> None:
    generator = TimeGenerator(TokenStream("coarse", 9, 1, 75))
    windows = plan_windows(0, 100, 20, 10)
    track = generator.track(windows, torch.zeros(1, 0, 1, dtype=torch.long))
    track.tokens(0, 20)
    assert len(generator.windows) == 1
    track.tokens(25, 31)
    assert [start for start, _ in generator.windows] == [window.start for window in windows[:3]]


@given(st.floats(0.01, 600))
def test_ticks_hold_the_duration_and_no_more(seconds: float) -> None:
    ticks = TickGrid(config().token_grid).ticks(seconds)
    assert seconds / 0.04 - 1e-6 <= ticks < seconds / 0.04 + 1
