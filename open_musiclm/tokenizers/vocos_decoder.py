"""A Vocos (Siuzdak 2023) as the decoder of a codec: from the vectors of codes to sound, by the vocos package's modules.

It may be trained for several numbers of codebooks, each with an adaptive layer norm of its own. Its frames may be
shorter than the codec's: then every latent is spread over `hop // head_hop` of them. A directory of
`scripts/train_vocos.py` has `config.json` and `model.safetensors`.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from open_musiclm.config.json_files import Section

Size = Annotated[int, Field(ge=1, le=1 << 14)]
Counts = Annotated[tuple[Annotated[int, Field(ge=1, le=256)], ...], Field(min_length=1, max_length=64, strict=False)]
_KERNEL_RADIUS = 3  # of the package's convolutions


class VocosArchitecture(Section):
    """The shape of a Vocos decoder; the defaults are those of charactr/vocos-encodec-24khz."""

    decoder: Literal["vocos"] = "vocos"
    sample_hz: Annotated[int, Field(ge=1, le=384000)] = 24000
    hop: Size = 320
    latent_dim: Size = 128
    quantizers: Counts = (2, 4, 8, 16)
    dim: Size = 384
    intermediate_dim: Size = 1152
    layers: Annotated[int, Field(ge=1, le=64)] = 8
    n_fft: Annotated[int, Field(ge=16, le=1 << 16)] = 1280
    head_hop: Size = 320

    @model_validator(mode="after")
    def _frames_fit(self) -> "VocosArchitecture":
        if self.hop % self.head_hop:
            raise ValueError(f"head_hop {self.head_hop} must divide hop {self.hop}")
        if self.n_fft <= self.head_hop or (self.n_fft - self.head_hop) % 2 or self.n_fft % 2:
            raise ValueError(f"n_fft {self.n_fft} must be even and above head_hop {self.head_hop} by an even number")
        if list(self.quantizers) != sorted(set(self.quantizers)):
            raise ValueError(f"quantizers {list(self.quantizers)} must rise")
        return self

    @property
    def context_frames(self) -> int:
        """How many codec frames on each side the sound of a frame depends on."""
        head_frames = _KERNEL_RADIUS * (self.layers + 1) + -(-self.n_fft // self.head_hop)
        spread = self.hop // self.head_hop
        return -(-head_frames // spread) + (spread > 1)


class VocosDecoder(nn.Module):
    """Sums of code vectors to sound, `hop` samples for each."""

    def __init__(self, architecture: VocosArchitecture) -> None:
        from vocos.heads import ISTFTHead  # here, for it imports scipy, which other decoders do not need
        from vocos.models import VocosBackbone

        super().__init__()
        self.spread = architecture.hop // architecture.head_hop
        dim = architecture.latent_dim
        if self.spread > 1:
            self.upsample = nn.Conv1d(dim, dim * self.spread, 3, padding=1)
        levels = len(architecture.quantizers)
        self.backbone = VocosBackbone(
            dim,
            architecture.dim,
            architecture.intermediate_dim,
            architecture.layers,
            adanorm_num_embeddings=levels if levels > 1 else None,
        )
        self.head = ISTFTHead(architecture.dim, architecture.n_fft, architecture.head_hop, padding="same")

    def forward(self, latents: Float[Tensor, "batch latent_dim time"], level: int) -> Float[Tensor, "batch samples"]:
        """time * hop samples; `level` is the place in `quantizers` of the number of codebooks in the sums."""
        if self.spread > 1:
            spread = self.upsample(latents).unflatten(1, (-1, self.spread))
            latents = spread.transpose(2, 3).flatten(2)
        chosen = torch.tensor([level], device=latents.device)
        hidden = self.backbone(latents, bandwidth_id=chosen if self.backbone.adanorm else None)
        with torch.autocast(latents.device.type, enabled=False):  # phases want full precision
            return self.head(hidden.float())
