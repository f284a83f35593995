"""The bars that a user sees while music is made."""

import warnings

import pytest

from open_musiclm.generation.progress import StageBars


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
