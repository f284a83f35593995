"""The constant-Q spectrogram that MERT reconstructs where its input is masked (MERT, 3.2)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

_QUIETEST = 1e-4


class ConstantQ(nn.Module):
    """Log magnitudes at geometrically spaced pitches, one frame every `hop` samples (Brown and Puckette 1992)."""

    kernel: Tensor

    def __init__(
        self, sample_hz: int, hop: int, bins: int = 84, bins_per_octave: int = 12, lowest_hz: float = 55.0
    ) -> None:
        super().__init__()
        quality = 1 / (2 ** (1 / bins_per_octave) - 1)
        pitches = lowest_hz * 2 ** (torch.arange(bins, dtype=torch.float64) / bins_per_octave)
        lengths = (quality * sample_hz / pitches).ceil()
        self.hop = hop
        self.window = 1 << int(lengths.max() - 1).bit_length()
        time = torch.arange(self.window, dtype=torch.float64) - self.window // 2
        inside = time.abs()[None] < lengths[:, None] / 2
        windows = torch.where(inside, torch.cos(torch.pi * time[None] / lengths[:, None]).square(), 0)
        waves = (
            windows / windows.sum(dim=1, keepdim=True) * torch.exp(2j * torch.pi * pitches[:, None] * time / sample_hz)
        )
        above = pitches >= sample_hz / 2
        waves[above] = 0
        kernel = torch.fft.fft(waves)[:, : self.window // 2 + 1].conj() / self.window
        self.register_buffer("kernel", kernel.to(torch.complex64), persistent=False)

    def forward(self, waves: Float[Tensor, "batch samples"], frames: int) -> Float[Tensor, "batch time bins"]:
        """`frames` frames, the first centred half a hop after the beginning; silence is 0, a full-scale tone 8.5."""
        before = self.window // 2 - self.hop // 2
        after = max((frames - 1) * self.hop + self.window - before - waves.shape[1], 0)
        padded = nn.functional.pad(waves, (before, after))
        spectrum = torch.fft.rfft(padded.unfold(1, self.window, self.hop)[:, :frames])
        magnitudes = (spectrum @ self.kernel.T).abs()
        return (magnitudes / _QUIETEST).log1p()
