"""Argparse types: text of the command line to checked values (no torch in here)."""

import argparse
from collections.abc import Callable
from typing import Literal, TypeVar

from open_musiclm.config import STAGE_NAMES
from open_musiclm.config.prompt_text import prompt_problem

OFF = "off"
LARGEST_SEED = 2**32 - 1
Number = TypeVar("Number", int, float)


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def finite_float(text: str) -> float:
    """An argparse type: a number."""
    value = float(text)
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def positive_float(text: str) -> float:
    """An argparse type: a finite number above 0 (seconds, hours)."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def number_in(kind: type[Number], least: Number, most: Number) -> Callable[[str], Number]:
    """An argparse type: a number from `least` to `most`."""

    def number(text: str) -> Number:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not from {least} to {most}")
        return value

    return number


def seed(text: str) -> int:
    """An argparse type: a seed that numpy and scikit-learn take."""
    return number_in(int, 0, LARGEST_SEED)(text)


def sample_rate(text: str) -> int:
    """An argparse type: a rate that sound files have, Hz."""
    value = int(text)
    if not 8000 <= value <= 192_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 8000 and 192000")
    return value


def fraction(text: str) -> float:
    """An argparse type: a number of at least 0 and below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0 and below 1")
    return value


def positive_fraction(text: str) -> float:
    """An argparse type: a number above 0 and below 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and below 1")
    return value


def non_negative_float(text: str) -> float:
    """An argparse type: a finite number of at least 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not at least 0")
    return value


def guidance(text: str) -> float | list[float]:
    """An argparse type: one number of at least 0, or one each for the semantic, coarse and fine stage (4,2.5,1)."""
    numbers = [non_negative_float(part) for part in text.split(",")]
    if len(numbers) not in (1, len(STAGE_NAMES)):
        raise argparse.ArgumentTypeError(f"{text}: expected one number, or one for each of {', '.join(STAGE_NAMES)}")
    return numbers if len(numbers) > 1 else numbers[0]


def share(text: str) -> float:
    """An argparse type: a number above 0, at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def prompt(text: str) -> str:
    """An argparse type: a prompt that holds at least one visible character."""
    problem = prompt_problem(text)
    if problem is not None:
        raise argparse.ArgumentTypeError(f"the prompt {problem}")
    return text


def loudness(text: str) -> float | Literal["off"]:
    """An argparse type: LUFS from -60 to 0, or off."""
    if text == OFF:
        return "off"
    value = float(text)
    if not -60 <= value <= 0:
        raise argparse.ArgumentTypeError(f"{text}: expected LUFS from -60 to 0 (-16 is usual), or {OFF}")
    return value
