"""The card and the page of a memorization measurement."""

import datetime
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from open_musiclm.evaluation.memorization import CONTINUATION_SECONDS, MemorizationOptions, PromptLength, threshold_of
from open_musiclm.evaluation.page import html_list, html_table, page
from open_musiclm.evaluation.plots import new_drawing, png_url
from open_musiclm.files import write_html, write_json
from open_musiclm.metrics.intervals import Estimate, percentile_interval
from open_musiclm.versions import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

CARD_NAME, PAGE_NAME = "memorization.json", "memorization.html"


def memorization_card(
    stores: Mapping[str, Sequence[PromptLength]], options: MemorizationOptions, checkpoint: Mapping[str, str]
) -> dict[str, Any]:
    """Shares of matches of each store and prompt length, with 95 % intervals over segments, and the threshold.

    One threshold for all, from the wrong pairs of all prompt lengths of the first store.
    """
    first = next(iter(stores.values()))
    wrong = torch.cat([length.wrong_costs for length in first])
    threshold = threshold_of(wrong, options.false_positives)
    warnings = []
    if len(wrong) * options.false_positives < 1:
        warnings.append(
            f"{len(wrong)} wrong pairs are too few for {options.false_positives:g} false positives: the threshold is "
            "the lowest cost of a wrong pair; give more --num_examples or --permutations"
        )
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions(),
        "checkpoint": dict(checkpoint),
        "seed": options.seed,
        "continuation_seconds": CONTINUATION_SECONDS,
        "threshold": threshold,
        "wrong_pairs": len(wrong),
        "wrong_pairs_below_threshold": float((wrong < threshold).double().mean()),
        "warnings": warnings,
        "stores": {name: [_row(length, threshold) for length in lengths] for name, lengths in stores.items()},
    }


def write_report(folder: Path, card: Mapping[str, Any], stores: Mapping[str, Sequence[PromptLength]]) -> None:
    """Writes memorization.json and memorization.html. Raises UserError."""
    write_json(folder / CARD_NAME, card)
    plots = {
        "Share of matches against the length of the prompt": _shares(card),
        "Cost of right and of wrong pairs": _costs(stores, card["threshold"]),
    }
    body = [
        "<h1>Memorization</h1>",
        f"<p>Share of segments that {CONTINUATION_SECONDS} s, decoded greedily, match; in brackets the 95 % interval. "
        f"Threshold of approximate matches: {card['threshold']:.4g}, below which lie "
        f"{card['wrong_pairs_below_threshold']:.3%} of {card['wrong_pairs']} wrong pairs.</p>",
        html_table(["store", "prompt, s", "segments", "exact", "approximate", "different tokens"], _cells(card)),
        html_list("Warnings", card["warnings"], "warning"),
        *(f'<h2>{title}</h2>\n<img alt="{title}" src="{png_url(drawing)}">' for title, drawing in plots.items()),
        html_list("How", ["command: " + " ".join(map(str, card["command"])), f"seed: {card['seed']}"], ""),
    ]
    write_html(folder / PAGE_NAME, page("Memorization", body))


def _row(length: PromptLength, threshold: float) -> dict[str, Any]:
    matches = (length.exact > 0) | (length.costs < threshold)  # the threshold may be 0
    exact, approximate = _estimate(length.exact), _estimate(matches.double())
    return {
        "prompt_seconds": length.seconds,
        "stretches": len(length.costs),
        "exact": [exact.value, exact.low, exact.high],
        "approximate": [approximate.value, approximate.low, approximate.high],
        "different_tokens": length.different_tokens,
    }


def _estimate(values: torch.Tensor) -> Estimate:
    return percentile_interval(values, torch.mean, np.random.default_rng(0))


def _cells(card: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            name,
            str(row["prompt_seconds"]),
            str(row["stretches"]),
            *("{:.1%} [{:.1%}, {:.1%}]".format(*row[kind]) for kind in ("exact", "approximate")),
            f"{row['different_tokens']:.1f}",
        ]
        for name, rows in card["stores"].items()
        for row in rows
    ]


def _shares(card: Mapping[str, Any]) -> "Drawing":
    drawing, axes = new_drawing()
    for name, rows in card["stores"].items():
        seconds = [row["prompt_seconds"] for row in rows]
        for kind, style in (("approximate", "o-"), ("exact", "s--")):
            shares = 100 * np.array([row[kind] for row in rows])
            ends = np.abs(shares[:, 1:] - shares[:, :1]).T
            axes.errorbar(seconds, shares[:, 0], ends, fmt=style, label=f"{name}, {kind}", capsize=3, linewidth=1)
    axes.set(xlabel="prompt, s", ylabel="% of segments", ylim=(0, None))
    axes.legend()
    return drawing


def _costs(stores: Mapping[str, Sequence[PromptLength]], threshold: float) -> "Drawing":
    drawing, axes = new_drawing()
    values = {f"{name}, right": torch.cat([length.costs for length in own]) for name, own in stores.items()}
    first = next(iter(stores.values()))
    values["wrong"] = torch.cat([length.wrong_costs for length in first])
    edges = np.linspace(0, max(float(own.max()) for own in values.values()) or 1.0, 41)
    for name, own in values.items():
        axes.hist(own.numpy(), edges.tolist(), weights=np.full(len(own), 100 / len(own)), histtype="step", label=name)
    axes.axvline(threshold, color="black", linewidth=1, linestyle=":", label="threshold")
    axes.set(xlabel="matching cost", ylabel="% of pairs")
    axes.legend()
    return drawing


def summary(card: Mapping[str, Any]) -> list[str]:
    """The lines about a measurement for the person at the terminal."""
    lines = [
        f"{name}, {seconds} s given, {segments} segments: exact {exact}, approximate {approximate}"
        for name, seconds, segments, exact, approximate, _ in _cells(card)
    ]
    below = f"{card['wrong_pairs_below_threshold']:.3%} of {card['wrong_pairs']} wrong pairs below"
    return [*lines, f"threshold {card['threshold']:.4g}, {below}", *(f"warning: {line}" for line in card["warnings"])]
