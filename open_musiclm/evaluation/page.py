"""The page of an evaluation: one HTML file with tables and plots, without other files."""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from open_musiclm.evaluation.compare import Comparison
from open_musiclm.evaluation.figures import Figure
from open_musiclm.evaluation.plots import evaluation_plots
from open_musiclm.evaluation.set_names import REFERENCE

_ARROWS = {"lower": "↓", "higher": "↑", "neither": ""}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1d2329; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } th, td { padding: 0.3rem 0.8rem; border-bottom: 1px solid #d5dae0; }
th { text-align: left; vertical-align: top; } .figures tr > th:first-child { max-width: 20rem; }
td { text-align: right; white-space: nowrap; vertical-align: top; } tr:first-child > th { text-align: right; }
tr > :first-child, tr:first-child > th:first-child { text-align: left; }
.figures tr > th:first-child { position: sticky; left: 0; background: #fff; min-width: 9rem; }
small { color: #5a6672; font-weight: normal; } .warning { color: #9a4b00; } .none { color: #8a949e; }
img { width: min(100%, 38rem); height: auto; } p, li { overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  th, td { padding: 0.3rem 0.4rem; } .figures tr > th:first-child { min-width: 0; max-width: 8rem; }
  ul { padding-left: 1.2rem; }
}
"""


def evaluation_page(
    reference: Comparison, sets: Mapping[str, Comparison], warnings: Sequence[str], card: Mapping[str, Any]
) -> str:
    """The page as HTML."""
    body = [
        "<h1>Evaluation</h1>",
        f"<p>{_summary(reference, sets)}</p>",
        "<p>In brackets the 95 % interval, then the number of clips. ↓: lower is better, ↑: higher is.</p>",
        _table({REFERENCE: reference, **sets}),
        html_list("Warnings", warnings, "warning"),
        *_plots(reference, sets),
        html_list("How", list(_settings(card)), ""),
    ]
    return page("Evaluation", body)


def page(title: str, body: Sequence[str]) -> str:
    """A whole HTML page of parts of HTML."""
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    content = "\n".join(part for part in body if part)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head><body>\n{content}\n</body></html>\n'
    )


def _summary(reference: Comparison, sets: Mapping[str, Comparison]) -> str:
    counts = ", ".join(f"<b>{html.escape(name)}</b> ({len(own.measured.clips)} clips)" for name, own in sets.items())
    folder = html.escape(str(reference.measured.folder))
    return f"{counts} against <b>{folder}</b> ({len(reference.measured.clips)} clips)."


def _table(columns: Mapping[str, Comparison]) -> str:
    kinds: dict[str, Figure] = {}
    for own in columns.values():
        for figure in own.figures:
            if figure.key not in kinds or kinds[figure.key].value is None:
                kinds[figure.key] = figure
    ordered = sorted(kinds, key=_order([figure.key for own in columns.values() for figure in own.figures]))
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    rows = []
    for key in ordered:
        cells = "".join(f"<td>{_cell(own.figure(key))}</td>" for own in columns.values())
        title = f"{html.escape(kinds[key].title)} {_ARROWS[kinds[key].better]}"
        rows.append(f"<tr><th>{title}<br><small>{html.escape(kinds[key].note)}</small></th>{cells}</tr>")
    return (
        f'<div class="wide"><table class="figures"><tr><th></th>{heads}</tr>\n' + "\n".join(rows) + "\n</table></div>"
    )


def _order(keys: Sequence[str]) -> Any:
    """Figures of sets come in the order of the last set, which has them all."""
    last = {key: place for place, key in enumerate(keys)}
    return lambda key: last[key]


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.value is None:
        return f'<span class="none" title="{html.escape(figure.note)}">none</span>'
    warning = f' <span class="warning" title="{html.escape(figure.warning)}">⚠</span>' if figure.warning else ""
    interval = ""
    if figure.low is not None and figure.high is not None:
        interval = f"[{number(figure.low)}, {number(figure.high)}]<br>"
    return f"{number(figure.value)}{warning}<br><small>{interval}{figure.clips}</small>"


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    lines = ["".join(f"<td>{html.escape(text)}</td>" for text in row) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}\n</table></div>'


def number(value: float) -> str:
    """The value with three significant digits, without an exponent."""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{float(f'{value:.3g}'):g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.4f}"


def html_list(title: str, lines: Sequence[str], kind: str) -> str:
    """A heading and lines below it; nothing where there are no lines."""
    if not lines:
        return ""
    items = "\n".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<h2>{html.escape(title)}</h2>\n<ul class="{kind}">\n{items}\n</ul>'


def _plots(reference: Comparison, sets: Mapping[str, Comparison]) -> Iterator[str]:
    for title, url in evaluation_plots(reference, sets).items():
        yield f'<h2>{html.escape(title)}</h2>\n<img alt="{html.escape(title)}" src="{url}">'


def _settings(card: Mapping[str, Any]) -> Iterator[str]:
    yield "command: " + " ".join(map(str, card["command"]))
    for name, model in card["models"].items():
        yield f"{name}: {model['name']}, identity {model['identity']}"
    for key in ("seed", "bootstrap_replicates", "seconds_of_each_clip", "most_clips", "date"):
        yield f"{key.replace('_', ' ')}: {card[key]}"
    yield ", ".join(f"{name} {version}" for name, version in card["versions"].items())
