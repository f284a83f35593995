"""Notes in sound, found by basic-pitch (Bittner et al. 2022), a model that is independent of this project.

Needs onnxruntime, and the model file `nmp.onnx` of the basic-pitch package (basic_pitch/saved_models/icassp_2022).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from open_musiclm.audio import resample
from open_musiclm.errors import UserError

_SAMPLE_HZ, _HOP = 22050, 256
_WINDOW = 2 * _SAMPLE_HZ - _HOP
_NOTES = "StatefulPartitionedCall:1"  # the model's names are numbers: 2 is onsets, 0 contours
_LOWEST_KEY = 21  # A0, as a MIDI number
_TRIMMED = 15  # frames at both ends of a window, which overlap
_CONFIDENT, _SOUNDING, _SHORTEST = 0.5, 0.3, 5  # activations, and the frames of the shortest note


class NoteTracker:
    """Activations of the 88 keys of a piano along time."""

    def __init__(self, model: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError("--note_tracker needs onnxruntime: pip install onnxruntime") from error
        self._session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def activations(self, wave: Float[Tensor, "samples"], sample_hz: int) -> Float[np.ndarray, "time keys"]:
        """From 0 to 1, 86 frames a second."""
        sound = resample(wave, sample_hz, _SAMPLE_HZ).numpy()
        step, frames = _WINDOW - 2 * _TRIMMED * _HOP, len(sound) // _HOP
        padded = np.pad(sound, (_TRIMMED * _HOP, 2 * _WINDOW))
        parts = []
        for first in range(0, len(sound), step):
            window = padded[None, first : first + _WINDOW, None].astype(np.float32)
            (notes,) = self._session.run([_NOTES], {self._input: window})
            parts.append(notes[0, _TRIMMED:-_TRIMMED])
        return np.concatenate(parts)[:frames]


def confident_share(activations: Float[np.ndarray, "time keys"]) -> float:
    """The share of frames with a note above 0.5."""
    return float((activations.max(1) > _CONFIDENT).mean())


def notes_of(activations: Float[np.ndarray, "time keys"]) -> list["Note"]:
    """Every note: a key above 0.3 for five frames or more, with a frame above 0.5 among them; in order of begin."""
    notes = []
    for number, key in enumerate(activations.T):
        edges = np.flatnonzero(np.diff(np.pad((key > _SOUNDING).astype(np.int8), 1)))
        for start, end in edges.reshape(-1, 2):
            if end - start >= _SHORTEST and key[start:end].max() > _CONFIDENT:
                notes.append(Note(start * _HOP / _SAMPLE_HZ, (end - start) * _HOP / _SAMPLE_HZ, _LOWEST_KEY + number))
    return sorted(notes)


@dataclass(frozen=True, order=True)
class Note:
    """Begin and length in seconds, and the MIDI number of its key."""

    start: float
    seconds: float
    key: int
