"""Tables of measurements: as JSON, as text and as HTML."""

import html
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int

from open_musiclm.analysis.options import SEED
from open_musiclm.metrics.intervals import Estimate, mean_interval

Cell = str | int | float | Estimate
_FEW_DIGITS = 10
_INTERVAL = re.compile(r"(\[-?\d+\.\d+, -?\d+\.\d+\])$")


@dataclass(frozen=True)
class Table:
    """One table of the atlas; `note` says what the numbers mean and what they are over."""

    title: str
    note: str
    columns: Sequence[str]
    lines: Sequence[Sequence[Cell]]

    def json(self) -> dict[str, object]:
        """The lines as objects."""
        lines = [dict(zip(self.columns, map(_as_json, line), strict=True)) for line in self.lines]
        return {"title": self.title, "note": self.note, "lines": lines}

    def text(self) -> list[str]:
        """Lines for a terminal, columns under each other."""
        cells = [list(self.columns), *([_shown(cell) for cell in line] for line in self.lines)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(self.columns))]
        padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
        return [self.title, *(f"  {line.rstrip()}" for line in padded)]

    def html(self) -> str:
        """The table as a section of HTML."""
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{_marked(html.escape(_shown(cell)))}</td>" for cell in line) + "</tr>"
            for line in self.lines
        )
        return (
            f"<section><h2>{html.escape(self.title)}</h2><p>{html.escape(self.note)}</p>"
            f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
        )


def mean_cell(values: Float[np.ndarray, "values"], groups: Int[np.ndarray, "values"] | None = None) -> Estimate:
    """A cell with the mean of all values and its interval, over groups of values, by default over values."""
    return mean_interval(values, groups, np.random.default_rng(SEED))


def _as_json(cell: Cell) -> object:
    return asdict(cell) if isinstance(cell, Estimate) else cell


def _shown(cell: Cell) -> str:
    if isinstance(cell, Estimate):
        ends = "" if cell.low is None else f" [{cell.low:.3f}, {cell.high:.3f}]"
        return f"{cell.value:.3f}{ends}" if math.isfinite(cell.value) else "none"
    if isinstance(cell, float):
        if not math.isfinite(cell):
            return "none"
        return f"{cell:.3f}" if abs(cell) < _FEW_DIGITS else f"{cell:.1f}"
    return str(cell)


def _marked(text: str) -> str:
    """The cell with its interval, if any, apart, so that it is not broken."""
    return _INTERVAL.sub(r"<small>\1</small>", text)
