"""The bars that a user sees while music is made."""

import contextlib
import sys
import warnings

import pytest

from open_musiclm.generation import progress
from open_musiclm.generation.progress import StageBars, stage_progress
from open_musiclm.progress_bar import progress_bar, with_progress


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


def test_bars_of_other_work_are_lines_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(5000, "preprocessing", "files") as bar:
        for _ in range(5000):
            bar.update()
    assert list(with_progress("abc", 3, "decoding", "files")) == ["a", "b", "c"]
    told = capsys.readouterr().err
    assert "\r" not in told
    lines = told.splitlines()
    assert [line.split(" [")[0] for line in lines] == [
        "preprocessing: 0 of 5000 files",
        "preprocessing: 5000 of 5000 files",
        "decoding: 0 of 3 files",
        "decoding: 3 of 3 files",
    ]


def test_a_bar_that_cannot_be_written_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert list(with_progress("abc", 3, "decoding", "files")) == ["a", "b", "c"]
        monkeypatch.undo()
