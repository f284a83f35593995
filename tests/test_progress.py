"""The bars that a user sees while music is made."""

import contextlib
import warnings

import pytest

from open_musiclm.generation import progress
from open_musiclm.generation.progress import StageBars, stage_progress


def test_bars_count_seconds_of_music_up_to_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with StageBars() as bars:
            bars.begin("coarse", 0.6)
            for _ in range(6):
                bars.advance("coarse", 0.1)
            bars.begin("coarse", 0.6)  # the next batch
            for _ in range(6):
                bars.advance("coarse", 0.1 + 1e-9)
    assert "coarse" in capsys.readouterr().err.splitlines()[-1]
    assert bars.bars["coarse"].n == pytest.approx(1.2)


def test_in_a_file_lines_come_every_so_often_and_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with stage_progress() as lines:
        for stage in ("semantic", "coarse"):
            lines.begin(stage, 30.0)
            for _ in range(300):
                now[0] += 0.1
                lines.advance(stage, 0.1)
    told = capsys.readouterr().err.splitlines()
    assert 5 <= len(told) <= 7
    assert told[0] == "semantic 10.1/30.0 s of music"
    assert told[-1] == "semantic 30.0/30.0, coarse 30.0/30.0 s of music"
    assert not any("\r" in line or "|" in line for line in told)


def test_a_failure_is_not_told_as_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(KeyboardInterrupt), stage_progress() as lines:
        lines.begin("coarse", 1.0)
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""
