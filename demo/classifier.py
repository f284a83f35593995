"""A classifier of instrument family and tempo class, for measuring prompt adherence.

It is fitted to labelled clips and independent of CLAP: a support vector machine finds the family from spectra and
cepstra, extremely randomised trees (Geurts et al. 2006) the tempo from onsets, and from the spectra that say how onsets
sound. Both are fitted within minutes once the features are computed.
"""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
from jaxtyping import Float
from scipy.fft import dct
from scipy.ndimage import maximum_filter1d
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor

from open_musiclm.audio.pitch_bands import pitch_bands

SAMPLE_HZ = 24000
_FRAME_HZ = 100
_LOWEST_HZ = 60.0
_FLOOR_DB = 60.0
_TIMBRE_WINDOW, _TIMBRE_BANDS = 1024, 64
_CEPSTRA = 20
_ONSETS = 40  # the strongest of a clip, whose attack and decay are measured
# Long enough to resolve a semitone: where one note is tied to the next, only the pitch changes.
_RHYTHM_WINDOW, _RHYTHM_BANDS = 2048, 96
_RISES = (2, 5)  # frames over which a band grows louder: struck and bowed notes
_RHYTHM_FLOORS_DB = (30.0, 60.0)  # a codec's noise lies between them, and its rises are no onsets
_STEEPEST = 10  # bands
_LAGS = np.arange(10, 200, 4)  # of the onsets' autocorrelation, in frames
_TREES = 500
_SMALLEST_ENERGY = 1e-9


class PromptClassifier:
    """Classifies waves at 24 kHz by instrument family and tempo class."""

    def __init__(self) -> None:
        self._family: Pipeline = make_pipeline(StandardScaler(), SVC(C=10.0))
        self._tempo = ExtraTreesClassifier(_TREES, min_samples_leaf=2, max_features=0.2, random_state=0)

    def fit(
        self, waves: Iterable[Float[Tensor, "samples"]], families: Sequence[str], tempi: Sequence[str]
    ) -> "PromptClassifier":
        """Fits to labelled clips; `waves` is iterated once, and no wave is kept. Returns itself."""
        timbres, rhythms = _features(waves)
        self._family.fit(timbres, list(families))
        self._tempo.fit(np.hstack((rhythms, timbres)), list(tempi))
        return self

    def families(self, waves: Sequence[Float[Tensor, "samples"]]) -> list[str]:
        """The instrument family of each wave."""
        return list(self._family.predict(np.stack([_timbre(wave) for wave in waves])))

    def tempi(self, waves: Sequence[Float[Tensor, "samples"]]) -> list[str]:
        """The tempo class of each wave."""
        timbres, rhythms = _features(waves)
        return list(self._tempo.predict(np.hstack((rhythms, timbres))))


def _features(waves: Iterable[Float[Tensor, "samples"]]) -> tuple[np.ndarray, np.ndarray]:
    """Timbre and rhythm features [waves, features]."""
    features = [(_timbre(wave), _rhythm(wave)) for wave in waves]
    return np.stack([timbre for timbre, _ in features]), np.stack([rhythm for _, rhythm in features])


def _spectrogram(wave: Float[Tensor, "samples"], window: int, bands: int) -> np.ndarray:
    """Decibels [time, bands] relative to the loudest, at least -60; bands of equal musical steps."""
    decibels = pitch_bands(wave, SAMPLE_HZ, window, SAMPLE_HZ // _FRAME_HZ, bands, _LOWEST_HZ, SAMPLE_HZ / 2).T
    return (decibels - decibels.max()).clamp_min(-_FLOOR_DB).numpy()


def _timbre(wave: Float[Tensor, "samples"]) -> np.ndarray:
    """Mean, spread and movement of every band and cepstral coefficient over the frames that are not near silence, and
    the attack and decay of notes."""
    spectrogram = _spectrogram(wave, _TIMBRE_WINDOW, _TIMBRE_BANDS)
    loud = spectrogram.max(axis=1) > -_FLOOR_DB / 2
    frames = spectrogram[loud] if loud.any() else spectrogram
    relative = frames - frames.max(axis=1, keepdims=True)
    changes = np.diff(spectrogram, axis=0)
    bands = [relative.mean(axis=0), relative.std(axis=0), np.percentile(relative, 90, axis=0)]
    cepstra = dct(frames, axis=1, norm="ortho")[:, :_CEPSTRA]
    shape = [cepstra.mean(axis=0), cepstra.std(axis=0), *np.percentile(cepstra, [10, 90], axis=0)]
    movement = [np.abs(changes).mean(axis=0), np.abs(np.diff(cepstra, axis=0)).mean(axis=0)]
    rises = np.maximum(changes, 0).mean(axis=1)
    return np.concatenate([*bands, *shape, *movement, *_envelope(spectrogram.max(axis=1), rises)])


def _envelope(loudness: np.ndarray, rises: np.ndarray) -> list[np.ndarray]:
    """Loudness around the strongest onsets relative to theirs, every 50 ms, and quantiles of the onsets' strength."""
    before, after = 5, 60
    places = [place for place in np.argsort(rises)[-_ONSETS:] if before < place < len(rises) - after]
    around = [loudness[p - before : p + after : 5] - loudness[p : p + 10].max() for p in places]
    course = np.mean(around, axis=0) if around else np.zeros((before + after) // 5)
    steps = np.diff(loudness)
    spread = np.array([loudness.std(), (steps < -1).mean(), (steps > 1).mean()])
    return [course, np.percentile(rises, [10, 50, 90, 99]), spread]


def _rhythm(wave: Float[Tensor, "samples"]) -> np.ndarray:
    """Peaks a second, strength and periodicity of several measures of rising bands."""
    spectrogram = _spectrogram(wave, _RHYTHM_WINDOW, _RHYTHM_BANDS).T
    features = []
    for floor, frames in product(_RHYTHM_FLOORS_DB, _RISES):
        bands = np.maximum(spectrogram, -floor)
        around = maximum_filter1d(bands, 3, axis=0)  # a vibrato is no onset
        rises = np.maximum(bands[:, frames:] - around[:, :-frames], 0)
        for strength in (rises.mean(axis=0), np.sort(rises, axis=0)[-_STEEPEST:].mean(axis=0)):
            features.append(_describe_onsets(np.convolve(strength, np.hanning(9) / np.hanning(9).sum(), mode="same")))
    return np.concatenate(features)


def _describe_onsets(strength: np.ndarray) -> np.ndarray:
    """Peaks a second above several bounds, autocorrelation, mean and spread of an onset strength [time]."""
    peak = strength == maximum_filter1d(strength, 13)
    median, most = np.percentile(strength, [50, 99])
    bounds = [median + share * (most - median) for share in (0.1, 0.2, 0.35, 0.5)] + [1.0, 2.0, 4.0]
    counts = [(peak & (strength > bound)).sum() / len(strength) * _FRAME_HZ for bound in bounds]
    centred = strength - strength.mean()
    energy = max(float(centred @ centred), _SMALLEST_ENERGY)
    periodicity = [float(centred[:-lag] @ centred[lag:]) / energy if lag < len(centred) else 0.0 for lag in _LAGS]
    strongest = [_LAGS[int(np.argmax(periodicity))], max(periodicity)]
    return np.array([*counts, *periodicity, *strongest, strength.mean(), strength.std()])
