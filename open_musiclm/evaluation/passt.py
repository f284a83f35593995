"""Class probabilities by PaSST (Koutini et al. 2022), from the package hear21passt where it is installed."""

import importlib.util
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from open_musiclm.audio import Sound, repeat_to, resampled, windows_of
from open_musiclm.errors import UserError, first_line
from open_musiclm.evaluation.clips import EvaluationClip
from open_musiclm.evaluation.distances import Resampling, few_for_means
from open_musiclm.evaluation.figures import Figure, Metric
from open_musiclm.evaluation.measure import Measured, identity_of
from open_musiclm.evaluation.measured_set import MeasuredSet
from open_musiclm.metrics.intervals import percentile_interval
from open_musiclm.metrics.kl_divergence import kl_divergence

_HZ, _WINDOW_SECONDS = 32000, 10
_NOTE = "PaSST's classes, mean over pairs of clips of the same name, in nats"
KL_TO = Metric("kl_reference_generated", "KL(reference || clip)", "lower", _NOTE)
KL_FROM = Metric("kl_generated_reference", "KL(clip || reference)", "lower", _NOTE)


class PasstMeasure:
    """`classes`: the probabilities (softmax of the logits) of AudioSet's 527 classes, the mean over windows of 10 s."""

    name = "PaSST"
    batch = 8
    finite = True

    def __init__(self, classifier: nn.Module, device: torch.device) -> None:
        self.classifier, self.device = classifier.eval().to(device), device
        self.identity = identity_of("passt 1", classifier)

    @classmethod
    def load(cls, device: torch.device) -> "PasstMeasure":
        """PaSST as its package has it. Raises UserError if it is not installed, or its weights are not available."""
        if importlib.util.find_spec("hear21passt") is None:
            raise UserError(
                "--metrics kl: PaSST is not installed; pip install 'open_musiclm[passt]', or leave kl out of --metrics"
            )
        try:
            with _tensors_only():
                from hear21passt.base import get_basic_model

                return cls(get_basic_model(mode="logits"), device)
        except (OSError, RuntimeError) as error:
            raise UserError(f"--metrics kl: PaSST's weights are not available: {first_line(error)}") from error

    @torch.no_grad()
    def measure(self, sounds: Sequence[Sound]) -> list[Measured]:
        """See the class; a sound shorter than a window is repeated."""
        window = _WINDOW_SECONDS * _HZ
        measured: list[Measured] = []
        for sound in sounds:
            wave = resampled(sound, _HZ)
            windows = torch.stack(windows_of(repeat_to(wave, max(len(wave), window)), window))
            logits = torch.cat([self.classifier(part.to(self.device)) for part in windows.split(self.batch)])
            measured.append({"classes": logits.float().softmax(dim=-1).mean(0, keepdim=True).cpu()})
        return measured


def divergence_figures(evaluated: MeasuredSet, reference: MeasuredSet, resampling: Resampling) -> list[Figure]:
    """Both directions over the pairs of an evaluated and a reference clip whose names are the same but for endings.

    A name that several clips of a set have, in several folders, is left out.
    """
    left, right = evaluated.get("passt", "classes"), reference.get("passt", "classes")
    assert left is not None
    assert right is not None
    own_places, places = (_places_of_names(set_.clips) for set_ in (evaluated, reference))
    pairs = [(place, places[name]) for name, place in own_places.items() if name in places]
    if not pairs:
        reason = "none: no clip has the name of a reference clip, which it would be compared with"
        return [metric.absent(reason, 0, 0) for metric in (KL_TO, KL_FROM)]
    own, other = (set_.vectors[list(rows)] for set_, rows in zip((left, right), zip(*pairs, strict=True), strict=True))
    return [
        metric.figure(
            percentile_interval(values, torch.mean, resampling.rng()),
            len(pairs),
            len(pairs),
            few_for_means(len(pairs)),
        )
        for metric, values in ((KL_TO, kl_divergence(other, own)), (KL_FROM, kl_divergence(own, other)))
    ]


def _places_of_names(clips: Sequence[EvaluationClip]) -> dict[str, int]:
    """The place of each clip by its file name without ending, where it is the only one of this name."""
    times = Counter(clip.path.stem for clip in clips)
    return {clip.path.stem: place for place, clip in enumerate(clips) if times[clip.path.stem] == 1}


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Makes torch.load read tensors only, whatever a package asks for."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
