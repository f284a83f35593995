"""The checks of signatures that the tests run with: they refuse a wrong shape, and end after so many calls."""

import pytest
import torch
from helpers.typechecker import MOST_CHECKS
from jaxtyping import TypeCheckError

from open_musiclm.audio.waves import repeat_to

STEREO = torch.zeros(2, 8)  # where a wave [samples] is asked for


@pytest.mark.parametrize("time", ["first", "after others"])
def test_a_wrong_shape_is_refused_until_the_checks_end(time: str) -> None:
    with pytest.raises(TypeCheckError):
        repeat_to(STEREO, 1)
    for _ in range(MOST_CHECKS):
        repeat_to(STEREO[0], 1)
    assert repeat_to(STEREO, 1).shape == (1, 8)
