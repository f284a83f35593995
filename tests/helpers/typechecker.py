"""The checks of signatures while the tests run: beartype, for the first calls of each test.

Without an end to them, two fifths of the time of a test that generates goes into checks of the same few functions.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

MOST_CHECKS = 5_000
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number may stand where a float is asked for
_left = MOST_CHECKS


def check_the_next_calls() -> None:
    """Checks the next MOST_CHECKS signatures; a call has one for its arguments and one with its result."""
    global _left
    _left = MOST_CHECKS
    jaxtyping.config.update("jaxtyping_disable", False)


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with checks of its signature; the last one that is allowed for turns them all off."""
    checks = _beartype(function)

    @wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        global _left
        _left -= 1
        if _left <= 0:  # threads may count past it
            jaxtyping.config.update("jaxtyping_disable", True)
        return checks(*args, **kwargs)

    return counted
