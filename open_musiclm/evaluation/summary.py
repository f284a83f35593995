"""The lines about an evaluation for the person at the terminal."""

from collections.abc import Iterator

from open_musiclm.evaluation.evaluate import Evaluation
from open_musiclm.evaluation.page import number


def summary(evaluation: Evaluation) -> Iterator[str]:
    """Every figure of every set with its interval."""
    for name, own in evaluation.sets.items():
        yield f"{name}, {len(own.measured.clips)} clips:"
        for figure in own.figures:
            if figure.value is None:
                yield f"  {figure.title}: {figure.note}"
            else:
                ends = "" if figure.low is None else f" [{number(figure.low)}, {number(figure.high or 0)}]"
                yield f"  {figure.title}: {number(figure.value)}{ends}"
