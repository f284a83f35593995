"""CLAP embeddings to CLAP tokens: a residual vector quantizer (MusicLM, Agostinelli et al. 2023)."""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from vector_quantize_pytorch import ResidualVQ

from open_musiclm.checkpoints import load_into, load_weights
from open_musiclm.config import ClapRvqConfig, ModelConfig
from open_musiclm.errors import UserError

_FIRST_CODEBOOK = "residual_vq.layers.0._codebook.embed"


class ClapQuantizer(nn.Module):
    """Codebooks over CLAP embeddings of size `dim`: moving averages that start from k-means."""

    def __init__(self, config: ClapRvqConfig, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.residual_vq = ResidualVQ(
            dim=dim,
            num_quantizers=config.rq_num_quantizers,
            codebook_size=config.codebook_size,
            decay=config.rq_ema_decay,
            threshold_ema_dead_code=config.threshold_ema_dead_code,
            commitment_weight=0.0,
            kmeans_init=True,
            sync_codebook=False,  # every process already updates from the embeddings of all
        ).eval()

    @classmethod
    def load(cls, path: Path, config: ModelConfig, device: torch.device) -> "ClapQuantizer":
        """A trained quantizer from a checkpoint of this project or a released one. Raises UserError."""
        weights = load_weights(path, "clap_rvq")
        if _FIRST_CODEBOOK not in weights.tensors:
            raise UserError(f"{weights.path}: holds no codebook ({_FIRST_CODEBOOK} is missing)")
        quantizer = cls(config.clap_rvq_cfg, dim=weights.tensors[_FIRST_CODEBOOK].shape[-1])
        load_into(quantizer, weights)
        if not quantizer.trained:
            raise UserError(f"{weights.path}: its codebooks were never trained; run scripts/train_clap_rvq.py first")
        return quantizer.to(device)

    def check_fits(self, embedding_dim: int, path: Path | None) -> None:
        """Raises UserError if CLAP's embeddings have another size; `path` is where this quantizer was loaded from."""
        if self.dim != embedding_dim:
            raise UserError(
                f"{path}: quantizes embeddings of {self.dim} numbers, the config's CLAP has {embedding_dim}; "
                "train one with scripts/train_clap_rvq.py"
            )

    @property
    def trained(self) -> bool:
        """Whether every codebook is initialised by k-means."""
        return all(bool(flag) for name, flag in self.residual_vq.named_buffers() if name.endswith(".initted"))

    @torch.no_grad()
    def encode(self, embeddings: Float[Tensor, "batch dim"]) -> Int[Tensor, "batch quantizers"]:
        """The nearest code per codebook, each for the residual of the codebooks before it.

        Distances are computed directly, not through a matrix product, so that the tokens of an embedding
        depend neither on the batch around it nor on the precision of products.
        """
        residual, tokens = embeddings.float(), []
        for codebook in self.residual_vq.codebooks:
            distances = torch.cdist(residual, codebook, compute_mode="donot_use_mm_for_euclid_dist")
            tokens.append(distances.argmin(-1))
            residual = residual - codebook[tokens[-1]]
        return torch.stack(tokens, dim=-1)

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "batch quantizers"]) -> Float[Tensor, "batch dim"]:
        """The embeddings of tokens: the sum of their codes."""
        codes = [codebook[ids] for codebook, ids in zip(self.residual_vq.codebooks, tokens.unbind(-1), strict=True)]
        return torch.stack(codes).sum(0)

    @torch.no_grad()
    def update(self, embeddings: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
        """One update of all codebooks (the first one runs k-means). Returns the mean squared error before it."""
        embeddings = embeddings.float()
        self.residual_vq.train()
        quantized, _, _ = self.residual_vq(embeddings.unsqueeze(0))
        self.residual_vq.eval()
        return (quantized.squeeze(0) - embeddings).square().mean()
