"""All figures of one measured set against a measured reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from open_musiclm.evaluation import distances
from open_musiclm.evaluation.clip_prompts import embed_clip_prompts
from open_musiclm.evaluation.distances import Resampling
from open_musiclm.evaluation.embeddings import ClapMeasure, MertMeasure
from open_musiclm.evaluation.figures import Figure, Metric, PerClip
from open_musiclm.evaluation.measure import Measure
from open_musiclm.evaluation.measured_set import MeasuredSet
from open_musiclm.evaluation.options import MetricName
from open_musiclm.evaluation.passt import divergence_figures
from open_musiclm.evaluation.prompt_figures import CYCLE, adherence_figures, cycle_figure
from open_musiclm.evaluation.sound_figures import level_figures, tempo_figures
from open_musiclm.evaluation.sound_measures import LevelMeasure
from open_musiclm.metrics.frechet import Extrapolation

_UNLIKE_LENGTHS = 1.25


@dataclass
class Comparison:
    """The figures of a set, numbers of its single clips by name, and what FAD-inf was extrapolated from."""

    measured: MeasuredSet
    figures: list[Figure] = field(default_factory=list)
    per_clip: PerClip = field(default_factory=dict)
    extrapolation: Extrapolation | None = None

    def figure(self, key: str) -> Figure | None:
        """The figure with a key, if there is one."""
        return next((figure for figure in self.figures if figure.key == key), None)

    def warnings(self) -> list[str]:
        """One line per warning, with its figures."""
        reasons: dict[str, list[str]] = {}
        for figure in self.figures:
            if figure.warning:
                reasons.setdefault(figure.warning, []).append(figure.title)
        return [f"{'; '.join(titles)}: {reason}" for reason, titles in reasons.items()]


def describe(
    measured: MeasuredSet, measures: Mapping[str, Measure], metrics: Sequence[MetricName], resampling: Resampling
) -> Comparison:
    """The figures of a single set: prompts, tempo, levels. The reference has them too."""
    result = Comparison(measured)
    whole, own = measured.get("clap", "whole"), measured.get("own_clap", "whole")
    if "prompts" in metrics:
        clap = measures["clap"]
        assert whole is not None
        assert isinstance(clap, ClapMeasure)
        seconds = _seconds(measured).tolist()
        clip_prompts = embed_clip_prompts(measured.clips, seconds, clap)
        _add(result, adherence_figures(clip_prompts, whole, resampling))
        own_clap = measures.get("own_clap")
        if isinstance(own_clap, ClapMeasure):
            if own is not None:  # another CLAP than the one that embeds
                clip_prompts, whole = embed_clip_prompts(measured.clips, seconds, own_clap), own
            result.figures.append(cycle_figure(clip_prompts, whole, resampling))
        else:
            reason = "none: the model's own CLAP was not named; give --checkpoint_dir or --model_config"
            result.figures.append(CYCLE.absent(reason, 0))
    estimates, levels = measured.get("tempo", "bpm"), measured.get("levels", "level")
    if estimates is not None:
        _add(result, tempo_figures(measured.clips, estimates, resampling))
    if levels is not None and "levels" in metrics:
        _add(result, level_figures(levels, resampling))
    return result


def compare(
    measured: MeasuredSet,
    reference: MeasuredSet,
    measures: Mapping[str, Measure],
    metrics: Sequence[MetricName],
    resampling: Resampling,
) -> Comparison:
    """The distances of a set from the reference, and its own figures."""
    result = Comparison(measured)
    windows, others = measured.get("clap", "windows"), reference.get("clap", "windows")
    whole, other_whole = measured.get("clap", "whole"), reference.get("clap", "whole")
    if "fad" in metrics and windows is not None and others is not None:
        result.figures.append(distances.frechet_figure(distances.FAD, windows, others, resampling))
        figure, result.extrapolation = distances.extrapolated_figure(windows, others, resampling)
        result.figures.append(figure)
        songs, per_clip = distances.per_song_figure(windows, others, resampling)
        _add(result, ([songs], per_clip))
    if "kad" in metrics and windows is not None and others is not None:
        result.figures += distances.kernel_figures(windows, others, resampling)
    if "density" in metrics and whole is not None and other_whole is not None:
        _add(result, distances.density_figures(whole, other_whole, resampling))
    mert = measures.get("mert")
    if isinstance(mert, MertMeasure):
        result.figures += _mert_figures(mert, measured, reference, resampling)
    if "kl" in metrics:
        result.figures += divergence_figures(measured, reference, resampling)
    own = describe(measured, measures, metrics, resampling)
    _add(result, (own.figures, own.per_clip))
    return result


def length_warning(comparison: Comparison, reference: Comparison) -> str | None:
    """A warning if the clips of two sets have different lengths: their windows that end in silence then differ."""
    own, other = (_median_seconds(one.measured) for one in (comparison, reference))
    if max(own, other) <= _UNLIKE_LENGTHS * min(own, other):
        return None
    return (
        f"clips of {own:g} s against reference clips of {other:g} s: distances then measure the length too; "
        f"give --seconds {min(own, other):g}"
    )


def _median_seconds(measured: MeasuredSet) -> float:
    return float(_seconds(measured).median())


def _seconds(measured: MeasuredSet) -> Float[Tensor, "clips"]:
    levels = measured.get("levels", "level")
    assert levels is not None
    return levels.vectors[:, LevelMeasure.SECONDS]


def _mert_figures(
    mert: MertMeasure, measured: MeasuredSet, reference: MeasuredSet, resampling: Resampling
) -> list[Figure]:
    seconds, others = measured.get("mert", "seconds"), reference.get("mert", "seconds")
    maximum, other_maximum = measured.get("mert", "maximum"), reference.get("mert", "maximum")
    assert seconds is not None
    assert others is not None
    assert maximum is not None
    assert other_maximum is not None
    note = f"{mert.name}; means over each second, all of a set pooled"
    frechet = Metric("mert_frechet", "Fréchet distance, MERT", "lower", note)
    title = "MAD" if mert.is_mad else "MAUVE divergence, MERT"
    mad = Metric("mad" if mert.is_mad else "mert_mauve", title, "lower", f"{mert.name}; maximum over time, one a clip")
    return [
        distances.frechet_figure(frechet, seconds, others, resampling),
        distances.divergence_figure(mad, maximum, other_maximum, resampling),
    ]


def _add(result: Comparison, found: tuple[list[Figure], PerClip]) -> None:
    result.figures += found[0]
    result.per_clip |= found[1]
