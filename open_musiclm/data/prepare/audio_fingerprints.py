"""Finds the same recording in two files, of any format and level, by fingerprints of the sound.

A fingerprint has 32 bits for every 64 ms: whether the energy difference of neighbouring frequency bands grows (Haitsma
and Kalker 2002), here by more than a share of the energy, because lossy formats change quiet noise. Two files are one
recording if, at some shift, their fingerprints agree in most of the bits that are set in either.
"""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, UInt32
from torch import Tensor

FINGERPRINT_HZ = 8000
FINGERPRINT_SECONDS = 60.0
_WINDOW, _HOP = 2048, 512
_LOWEST_HZ, _HIGHEST_HZ, _BANDS = 300.0, 2000.0, 33
_SMALLEST_RISE = 1e-3  # of the energy of a frame
_LARGEST_ERROR = 0.45  # seen: up to 0.15 between wav and ogg or mp3 of the same, 0.8 and more of others
_FEWEST_FRAMES = 27  # two seconds
_MOST_PLACES = 64  # of an indexed value: very frequent values identify nothing
_MOST_CANDIDATES = 8
_INDEXED = 2  # one of so many frames: the frames of another file are all looked up
_FLIPS = (0, *(1 << bit for bit in range(32)))  # a frame of a coded copy has the same bits rarely, all but one often

AudioFingerprint = UInt32[np.ndarray, "_"]


def fingerprint_of(wave: Float[Tensor, "samples"]) -> AudioFingerprint:
    """The fingerprint of a mono wave at `FINGERPRINT_HZ`."""
    if wave.shape[0] < _WINDOW:
        return np.zeros(0, np.uint32)
    window = torch.hann_window(_WINDOW)
    power = torch.stft(wave, _WINDOW, _HOP, window=window, center=False, return_complex=True).abs().square()
    edges = np.geomspace(_LOWEST_HZ, _HIGHEST_HZ, _BANDS + 1) * _WINDOW / FINGERPRINT_HZ
    places = np.round(edges).astype(int)
    bands = torch.stack([power[low : max(high, low + 1)].sum(dim=0) for low, high in pairwise(places)])
    differences = bands[:-1] - bands[1:]
    least = _SMALLEST_RISE * bands.sum(dim=0)[1:]
    rises = (differences[:, 1:] - differences[:, :-1] > least).T.numpy()  # [frames, 32]
    return np.ascontiguousarray(np.packbits(rises, axis=1)).view(np.uint32)[:, 0]


class FingerprintIndex:
    """Fingerprints of recordings by name, with a search for matching recordings.

    Every second frame is indexed, which takes about 100 KB of memory a recording.
    """

    def __init__(self) -> None:
        self._fingerprints: dict[str, AudioFingerprint] = {}
        self._places: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)

    def add(self, name: str, audio_fingerprint: AudioFingerprint) -> None:
        """Adds a recording."""
        self._fingerprints[name] = audio_fingerprint
        for frame, value in list(enumerate(audio_fingerprint.tolist()))[::_INDEXED]:
            if value and len(self._places[value]) < _MOST_PLACES:
                self._places[value].append((name, frame))

    def find(self, audio_fingerprint: AudioFingerprint) -> str | None:
        """The name of the recording that matches a fingerprint, None if there is none."""
        votes: Counter[tuple[str, int]] = Counter()
        for frame, value in enumerate(audio_fingerprint.tolist()):
            near = (self._places[value ^ flip] for flip in _FLIPS if value ^ flip in self._places)
            votes.update((name, place - frame) for places in near for name, place in places)
        for (name, shift), _ in votes.most_common(_MOST_CANDIDATES):
            if _error(self._fingerprints[name], audio_fingerprint, shift) < _LARGEST_ERROR:
                return name
        return None


def _error(known: AudioFingerprint, other: AudioFingerprint, shift: int) -> float:
    """The share of differing bits among those set in either, with `other` shifted by `shift` frames against `known`.

    It is 1 if they hardly overlap.
    """
    first, last = max(shift, 0), min(len(known), len(other) + shift)
    frames = last - first
    if frames < max(_FEWEST_FRAMES, min(len(known), len(other)) // 2):
        return 1.0
    one, two = known[first:last], other[first - shift : last - shift]
    return _bits(one ^ two) / max(_bits(one | two), 1)


def _bits(values: AudioFingerprint) -> int:
    return int(np.unpackbits(np.ascontiguousarray(values).view(np.uint8)).sum())
