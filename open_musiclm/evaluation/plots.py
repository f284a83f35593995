"""Plots of an evaluation as PNG images; matplotlib is imported when one is made."""

import base64
import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from open_musiclm.evaluation.compare import Comparison
from open_musiclm.evaluation.distances import PER_SONG
from open_musiclm.evaluation.prompt_figures import CLAP_SCORE
from open_musiclm.evaluation.set_names import REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

MOST_POINTS = 2000
_WIDE, _HIGH, _DPI = 5.2, 3.2, 200  # inches: so narrow that text can be read on a telephone
_BINS = 30


def evaluation_plots(reference: Comparison, sets: Mapping[str, Comparison]) -> dict[str, str]:
    """PNG images by title, as data URLs; those without data are left out."""
    everyone = {REFERENCE: reference, **sets}
    made = {
        "Maps: first two principal axes of one CLAP embedding a clip": _map(everyone),
        "FAD of sets of different sizes, and the line to FAD-inf": _extrapolations(sets),
        "FAD of single clips": _histogram(sets, PER_SONG.key, "FAD of one clip"),
        "CLAP score of single clips": _histogram(everyone, CLAP_SCORE.key, "cosine of prompt and clip"),
        "Loudness of single clips": _histogram(everyone, "loudness", "LUFS"),
    }
    return {title: png_url(drawing) for title, drawing in made.items() if drawing is not None}


def new_drawing() -> "tuple[Drawing, Axes]":
    """A figure with one pair of axes, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(_WIDE, _HIGH), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(drawing)
    return drawing, drawing.subplots()


def legend_text(name: str) -> str:
    """A name for a legend, as it is: matplotlib would take $ for mathematics, leave out what begins with _, and fail
    where text is not UTF-8."""
    text = name.encode("utf-8", "replace").decode("utf-8").replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def png_url(drawing: "Drawing") -> str:
    """The image within an address: a page that has it needs no other file."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # names in letters that the font lacks
        drawing.savefig(content, format="png")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _extrapolations(sets: Mapping[str, Comparison]) -> "Drawing | None":
    found = {name: own.extrapolation for name, own in sets.items() if own.extrapolation is not None}
    if not found:
        return None
    drawing, axes = new_drawing()
    for name, line in found.items():
        x = 1 / np.array(line.sizes)
        (points,) = axes.plot(x, line.distances, ".", label=legend_text(name))
        ends = np.array([0, x.max()])
        axes.plot(ends, line.intercept + line.slope * ends, color=points.get_color(), linewidth=1)
    axes.set(xlabel="1 / windows", ylabel="FAD", xlim=(0, None))
    axes.legend()
    return drawing


def _histogram(sets: Mapping[str, Comparison], key: str, label: str) -> "Drawing | None":
    values = {name: _finite(own, key) for name, own in sets.items()}
    values = {name: own for name, own in values.items() if len(own)}
    if not values:
        return None
    everything = np.concatenate(list(values.values()))
    low, high = float(everything.min()), float(everything.max())
    edges = np.linspace(low, high if high > low else low + 1e-6, _BINS + 1)
    drawing, axes = new_drawing()
    for name, own in values.items():
        axes.hist(
            own,
            edges.tolist(),
            weights=np.full(len(own), 100 / len(own)),
            histtype="step",
            label=legend_text(name),
            linewidth=1.5,
        )
    axes.set(xlabel=label, ylabel="% of clips")
    axes.legend()
    return drawing


def _map(sets: Mapping[str, Comparison]) -> "Drawing | None":
    vectors = {name: own.measured.get("clap", "whole") for name, own in sets.items()}
    some = {name: own.vectors[:MOST_POINTS].double() for name, own in vectors.items() if own is not None}
    if not some or sum(map(len, some.values())) < 3:
        return None
    pooled = torch.cat(list(some.values()))
    centre = pooled.mean(0)
    axes_of_variance = torch.linalg.eigh(torch.cov((pooled - centre).T)).eigenvectors[:, -2:].flip(1)
    drawing, axes = new_drawing()
    for name, own in some.items():
        x, y = ((own - centre) @ axes_of_variance).T.numpy()
        axes.plot(x, y, ".", label=legend_text(name), markersize=5, alpha=0.7)
    axes.set(xlabel="first axis", ylabel="second axis")
    axes.legend()
    return drawing


def _finite(own: Comparison, key: str) -> Float[np.ndarray, "_"]:
    values = own.per_clip.get(key, torch.zeros(0)).double().numpy()
    return values[np.isfinite(values)]
