"""CLAP's front end: waves to log-mel spectrograms, in batches and on the waves' own device.

Equal to transformers' ClapFeatureExtractor (Wu et al. 2023, section 3.3), except that nothing is left to chance:
where CLAP takes a random crop, this takes the middle one. Spectrograms are decibels, 100 frames a second.
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


@dataclass(frozen=True)
class ClapFeatures:
    """What the audio tower takes: one spectrogram, or with fusion the whole clip's and three crops'.

    `is_longer` marks the clips whose crops differ from the whole.
    """

    spectrograms: Float[Tensor, "batch views time mels"]
    is_longer: Bool[Tensor, "batch 1"]


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
        # A row for the real and one for the imaginary part of each frequency that any filter hears.
        self.register_buffer("_filters", filters[:highest].repeat_interleave(2, dim=0).float(), persistent=False)
        self._filters: Tensor

    def forward(self, waves: Float[Tensor, "batch samples"]) -> ClapFeatures:
        """Features of waves of any length: shorter ones are repeated as often as they fit, then followed by silence.

        Of longer ones the middle is taken, or with fusion the whole, shrunk, and the middle of each third.
        """
        clip = self._clip(waves)
        at_once = _CLIPS_AT_ONCE.get(waves.device.type, _CLIPS_AT_ONCE_ELSEWHERE)
        spectrograms = torch.cat([self._spectrograms(some) for some in clip.split(at_once)])
        longer = spectrograms.shape[1] > self.frames
        views = self._fused(spectrograms) if longer else spectrograms.unsqueeze(1)
        if self.fusion and not longer:
            views = views.expand(-1, 4, -1, -1)
        return ClapFeatures(views, torch.full((len(waves), 1), longer, device=waves.device))

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

    def _spectrograms(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch time mels"]:
        half = self._fft_samples // 2
        frames = functional.pad(waves.unsqueeze(1), (half, half), mode="reflect").squeeze(1)
        frames = frames.unfold(1, self._fft_samples, self._hop)
        mels, energy = self._mels(frames)
        lost = (mels < _LOST * energy.unsqueeze(-1) * self._filters.sum(dim=0)).any(dim=-1)
        if mels.device.type != "mps" and lost.any():
            mels[lost] = self._mels(frames[lost].double())[0]
        return 10 * mels.log10()

    def _mels(
        self, frames: Float[Tensor, "*batch samples"]
    ) -> tuple[Float[Tensor, "*batch mels"], Float[Tensor, "*batch"]]:
        """The power in each mel band, and in the whole frame, computed as precisely as the frames are."""
        windowed = frames * torch.hann_window(self._fft_samples, dtype=frames.dtype, device=frames.device)
        spectrum = torch.view_as_real(torch.fft.rfft(windowed)).flatten(-2)[..., : len(self._filters)]
        energy = torch.linalg.vector_norm(windowed, dim=-1).square() * (self._fft_samples // 2)
        return (spectrum.float().square() @ self._filters).clamp_min(_SILENCE), energy

    def _fused(self, spectrograms: Float[Tensor, "batch long mels"]) -> Float[Tensor, "batch 4 time mels"]:
        """The whole shrunk to `frames`, and the crops in the middle of the first, second and last third of places."""
        whole = functional.interpolate(
            spectrograms.unsqueeze(1), size=(self.frames, spectrograms.shape[2]), mode="bilinear", align_corners=False
        )
        places = torch.arange(spectrograms.shape[1] - self.frames + 1).tensor_split(3)
        starts = [int(third[len(third) // 2]) if len(third) else 0 for third in places]
        crops = [spectrograms[:, start : start + self.frames] for start in starts]
        return torch.cat([whole, torch.stack(crops, dim=1)], dim=1)
