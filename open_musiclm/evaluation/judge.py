"""A judge of instrument family and tempo class: learned from labelled clips, knows nothing of CLAP or of prompts.

A discriminant analysis of spectra and cepstra tells what plays, and trees tell from the rhythm of onsets how fast.
Small enough to be trained in seconds wherever a result is to be checked.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.fft import dct
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from open_musiclm.pitch_bands import pitch_bands

SAMPLE_HZ = 24000
_WINDOW, _HOP = 1024, 240  # a hundred frames a second
_BANDS = 64
_LOWEST_HZ = 60.0
_FLOOR_DB = 60.0
_LAGS = np.arange(8, 200, 3)  # of the onsets' autocorrelation, 0.08 to 2 s
_CEPSTRA = 20
_TREES = 300
_NOTHING = 1e-12


class Judge:
    """Tells the instrument family and the tempo class of waves at 24 kHz."""

    def __init__(self) -> None:
        discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        self._family: Pipeline = make_pipeline(StandardScaler(), discriminant)
        self._tempo = ExtraTreesClassifier(_TREES, random_state=0)

    def fit(self, waves: Sequence[Float[Tensor, "samples"]], families: Sequence[str], tempi: Sequence[str]) -> "Judge":
        """Learns from labelled clips."""
        spectra = [_spectrogram(wave) for wave in waves]
        self._family.fit(np.stack([_timbre(spectrum) for spectrum in spectra]), list(families))
        self._tempo.fit(np.stack([_rhythm(spectrum) for spectrum in spectra]), list(tempi))
        return self

    def families(self, waves: Sequence[Float[Tensor, "samples"]]) -> list[str]:
        """The instrument family of each wave."""
        return list(self._family.predict(np.stack([_timbre(_spectrogram(wave)) for wave in waves])))

    def tempi(self, waves: Sequence[Float[Tensor, "samples"]]) -> list[str]:
        """The tempo class of each wave."""
        return list(self._tempo.predict(np.stack([_rhythm(_spectrogram(wave)) for wave in waves])))


def _spectrogram(wave: Float[Tensor, "samples"]) -> np.ndarray:
    """Decibels [time, bands] below the loudest, at most 60; bands of equal musical steps."""
    decibels = pitch_bands(wave, SAMPLE_HZ, _WINDOW, _HOP, _BANDS, _LOWEST_HZ, SAMPLE_HZ / 2).T
    return (decibels - decibels.max()).clamp_min(-_FLOOR_DB).numpy()


def _timbre(spectrogram: np.ndarray) -> np.ndarray:
    """Mean, spread and movement of every band and cepstrum over the frames that are not near silence."""
    loud = spectrogram.max(axis=1) > -_FLOOR_DB / 2
    frames = spectrogram[loud] if loud.any() else spectrogram
    relative = frames - frames.max(axis=1, keepdims=True)
    movement = np.abs(np.diff(spectrogram, axis=0)).mean(axis=0)
    bands = [relative.mean(axis=0), relative.std(axis=0), np.percentile(relative, 90, axis=0), movement]
    cepstra = dct(frames, axis=1, norm="ortho")[:, :_CEPSTRA]
    shape = [cepstra.mean(axis=0), cepstra.std(axis=0), *np.percentile(cepstra, [10, 90], axis=0)]
    return np.concatenate([*bands, *shape, np.abs(np.diff(cepstra, axis=0)).mean(axis=0)])


def _rhythm(spectrogram: np.ndarray) -> np.ndarray:
    """The strength of onsets, how many there are, and their autocorrelation."""
    rises = np.maximum(np.diff(spectrogram, axis=0), 0).mean(axis=1)
    smooth = np.convolve(rises, np.hanning(7) / np.hanning(7).sum(), mode="same")
    peaks = (smooth[1:-1] > smooth[:-2]) & (smooth[1:-1] >= smooth[2:])
    heights = smooth[1:-1][peaks]
    seconds = len(smooth) * _HOP / SAMPLE_HZ
    counts = [(heights > share * smooth.max()).sum() / seconds for share in (0.15, 0.3, 0.5)]
    centred = smooth - smooth.mean()
    energy = max(float(centred @ centred), _NOTHING)
    periodicity = [float(centred[:-lag] @ centred[lag:]) / energy if lag < len(centred) else 0.0 for lag in _LAGS]
    return np.array([*counts, smooth.mean(), smooth.std(), *periodicity])
