"""CLAP's front end: waves to log-mel spectrograms, in batches and on the waves' own device.

Equal to transformers' ClapFeatureExtractor (Wu et al. 2023, section 3.3), but without randomness: where CLAP takes a
random crop, this takes the middle one. Spectrograms are decibels, 100 frames a second.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import ClapFeatureExtractor

from open_musiclm.audio import fit_length
from open_musiclm.errors import UserError

_SILENCE = 1e-10
# A band that holds less than this share of its frame's energy is lost in the rounding errors of float32.
_LOST = 1e-7
# One clip's frames stay in a CPU's cache; other devices are filled with many.
_CLIPS_AT_ONCE = {"cpu": 1}
_CLIPS_AT_ONCE_ELSEWHERE = 32
_FRAMES_AT_ONCE = 1024
# Mel bands are narrow: as many neighbours as this are computed from the frequencies that they cover, and no others.
_NEIGHBOURS = 16


@dataclass(frozen=True)
class ClapFeatures:
    """The input of the audio tower: one spectrogram, or with fusion those of the whole clip and of three crops.

    `is_longer` marks the clips whose crops differ from the whole.
    """

    spectrograms: Float[Tensor, "batch views time mels"]
    is_longer: Bool[Tensor, "batch 1"]


class _Workspace:
    """Memory for so many frames at a time; allocating it at every step would take longer than the steps."""

    def __init__(self, frames: int, samples: int, dtype: torch.dtype, device: torch.device) -> None:
        self.window = torch.hann_window(samples, dtype=dtype, device=device)
        self.windowed = torch.empty(frames, samples, dtype=dtype, device=device)
        self.spectrum = torch.empty(frames, samples // 2 + 1, dtype=dtype.to_complex(), device=device)


class ClapMel(nn.Module):
    """The front end that a `ClapFeatureExtractor` describes.

    With fusion the mel scale is HTK's, without it Slaney's with areas normalised: CLAP was trained so.
    """

    def __init__(self, extractor: ClapFeatureExtractor) -> None:
        super().__init__()
        if extractor.padding != "repeatpad" or extractor.truncation not in ("fusion", "rand_trunc"):
            raise UserError(
                f"clap_rvq_cfg.model_name: its preprocessor_config.json pads by {extractor.padding!r} and truncates by "
                f"{extractor.truncation!r}; CLAP was trained with 'repeatpad' and 'fusion' or 'rand_trunc'"
            )
        self.fusion: bool = extractor.truncation == "fusion"
        self.samples: int = extractor.nb_max_samples
        self._fft_samples: int = extractor.fft_window_size
        self._hop: int = extractor.hop_length
        self.frames = self.samples // self._hop + 1
        filters = torch.from_numpy(extractor.mel_filters if self.fusion else extractor.mel_filters_slaney)
        highest = int(filters.any(dim=1).nonzero().max()) + 1
        # A row for the real and one for the imaginary part of each frequency that any filter covers.
        self.register_buffer("_filters", filters[:highest].repeat_interleave(2, dim=0).float(), persistent=False)
        self._filters: Tensor
        self._neighbours = _bands_and_their_rows(self._filters)

    def extra_repr(self) -> str:
        """All settings that affect the features, besides the filters."""
        return f"samples={self.samples}, fft={self._fft_samples}, hop={self._hop}, fusion={self.fusion}"

    def forward(self, waves: Float[Tensor, "batch samples"]) -> ClapFeatures:
        """Features of waves of any length: shorter ones are repeated as often as they fit, then followed by silence.

        Of longer ones the middle is taken, or with fusion the whole, shrunk, and the middle of each third.
        """
        return self._features(self._spectrograms(self._clip(waves)))

    def windows(self, wave: Float[Tensor, "samples"], window: int, step: int) -> ClapFeatures:
        """Features of windows of `window` samples, one every `step`: those of `wave.unfold(0, window, step)`.

        Windows that begin a whole number of frames apart share frames, and each is computed once; only the first
        and last frames of a window, which see its reflection, are its own.
        """
        if window < self.samples or step % self._hop or step >= window:
            return self(wave.unfold(0, window, step))
        clip = window if self.fusion else self.samples
        starts = step * torch.arange((len(wave) - window) // step + 1, device=wave.device)
        wave = wave[(window - clip) // 2 :]
        half, work = self._fft_samples // 2, self._workspace()
        first, end = -(-half // self._hop), (clip - half) // self._hop + 1  # frames that lie within the clip
        within = wave[first * self._hop - half : int(starts[-1]) + (end - 1) * self._hop + half]
        shared = self._decibels(within.unfold(0, self._fft_samples, self._hop), work)
        shared = shared.unfold(0, end - first, step // self._hop).transpose(1, 2)
        own = torch.tensor([*range(first), *range(end, clip // self._hop + 1)], device=wave.device)
        places = own.unsqueeze(1) * self._hop + torch.arange(-half, self._fft_samples - half, device=wave.device)
        reflected = clip - 1 - (clip - 1 - places.abs()).abs()
        ends = self._decibels(wave[starts[:, None, None] + reflected].flatten(0, 1), work)
        ends = ends.unflatten(0, (len(starts), len(own)))
        return self._features(torch.cat([ends[:, :first], shared, ends[:, first:]], dim=1))

    def _features(self, spectrograms: Float[Tensor, "batch long mels"]) -> ClapFeatures:
        longer = spectrograms.shape[1] > self.frames
        views = self._fused(spectrograms) if longer else spectrograms.unsqueeze(1)
        if self.fusion and not longer:
            views = views.expand(-1, 4, -1, -1)
        return ClapFeatures(views, torch.full((len(views), 1), longer, device=views.device))

    def whole(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch time mels"]:
        """Spectrograms of all of the waves, not cut; what is shorter than CLAP's window is filled up to it."""
        if waves.shape[1] < self.samples:
            waves = self._clip(waves)
        return self._spectrograms(waves)

    def _clip(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch clip"]:
        samples = waves.shape[1]
        if samples > self.samples and not self.fusion:
            return waves.narrow(1, (samples - self.samples) // 2, self.samples)
        if samples < self.samples:
            return fit_length(waves.repeat(1, self.samples // samples), self.samples)
        return waves

    @property
    def _clips_at_once(self) -> int:
        return _CLIPS_AT_ONCE.get(self._filters.device.type, _CLIPS_AT_ONCE_ELSEWHERE)

    def _workspace(self) -> _Workspace:
        # Asking a GPU which frames need float64 would wait for it longer than float64 takes for all of them.
        dtype = torch.float64 if self._filters.is_cuda else torch.float32
        return _Workspace(self._clips_at_once * _FRAMES_AT_ONCE, self._fft_samples, dtype, self._filters.device)

    def _spectrograms(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch time mels"]:
        half, work = self._fft_samples // 2, self._workspace()
        spectrograms = []
        for some in waves.split(self._clips_at_once):
            padded = functional.pad(some.unsqueeze(1), (half, half), mode="reflect").squeeze(1)
            frames = padded.unfold(1, self._fft_samples, self._hop)
            spectrograms.append(self._decibels(frames.flatten(0, 1), work).unflatten(0, frames.shape[:2]))
        return torch.cat(spectrograms)

    def _decibels(self, frames: Float[Tensor, "time samples"], work: _Workspace) -> Float[Tensor, "time mels"]:
        """As many frames at a time as the workspace has room for."""
        return torch.cat([self._decibels_of(some, work) for some in frames.split(len(work.windowed))])

    def _decibels_of(self, frames: Float[Tensor, "time samples"], work: _Workspace) -> Float[Tensor, "time mels"]:
        mels, energy = self._mels(frames, work)
        if mels.dtype == torch.float32 and mels.device.type != "mps":
            lost = (mels < _LOST * energy.unsqueeze(-1) * self._filters.sum(dim=0)).any(dim=-1)
            if lost.any():
                precise = _Workspace(int(lost.sum()), self._fft_samples, torch.float64, mels.device)
                mels[lost] = self._mels(frames[lost], precise)[0].float()
        return mels.log10_().mul_(10).float()

    def _mels(
        self, frames: Float[Tensor, "time samples"], work: _Workspace
    ) -> tuple[Float[Tensor, "time mels"], Float[Tensor, "time"]]:
        """The power in each mel band, and in the whole frame, computed as precisely as the workspace is."""
        windowed, spectrum = work.windowed[: len(frames)], work.spectrum[: len(frames)]
        torch.mul(frames, work.window, out=windowed)
        torch.fft.rfft(windowed, out=spectrum)
        powers = torch.view_as_real(spectrum).flatten(-2)[:, : len(self._filters)].square_()
        filters = self._filters.to(powers.dtype)
        mels = torch.empty(len(frames), filters.shape[1], dtype=powers.dtype, device=powers.device)
        for bands, rows in self._neighbours:
            torch.mm(powers[:, rows], filters[rows, bands], out=mels[:, bands])
        energy = torch.linalg.vector_norm(windowed, dim=-1).square() * (self._fft_samples // 2)
        return mels.clamp_(min=_SILENCE), energy

    def _fused(self, spectrograms: Float[Tensor, "batch long mels"]) -> Float[Tensor, "batch 4 time mels"]:
        """The whole shrunk to `frames`, and the crops in the middle of the first, second and last third of places."""
        whole = functional.interpolate(
            spectrograms.unsqueeze(1), size=(self.frames, spectrograms.shape[2]), mode="bilinear", align_corners=False
        )
        places = torch.arange(spectrograms.shape[1] - self.frames + 1).tensor_split(3)
        starts = [int(third[len(third) // 2]) if len(third) else 0 for third in places]
        crops = [spectrograms[:, start : start + self.frames] for start in starts]
        return torch.cat([whole, torch.stack(crops, dim=1)], dim=1)


def _bands_and_their_rows(filters: Float[Tensor, "rows mels"]) -> list[tuple[slice, slice]]:
    """Neighbouring bands, and the rows from the first to the last that any of them covers."""
    groups = []
    for first in range(0, filters.shape[1], _NEIGHBOURS):
        bands = slice(first, first + _NEIGHBOURS)
        rows = filters[:, bands].any(dim=1).nonzero()
        groups.append((bands, slice(int(rows.min()), int(rows.max()) + 1)))
    return groups
