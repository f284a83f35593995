"""The three stages: their token sequences, their training loss, and generation of one window."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from open_musiclm.checkpoints import load_into, load_weights
from open_musiclm.config import ModelConfig, StageName, TransformerConfig
from open_musiclm.errors import UserError
from open_musiclm.models.example_noise import Seeds, noise
from open_musiclm.models.sampling import Sampling, sample, uniform_noise
from open_musiclm.models.token_sequences import (
    TokenSequence,
    TokenSequenceDecoder,
    append_end,
    conditioning_mask,
    flatten_ids,
)
from open_musiclm.models.transformer import Cache

STAGE_NAMES: tuple[StageName, ...] = ("semantic", "coarse", "fine")
FORGETFUL_MASK_SHARE = 0.15

Ids = Int[Tensor, "batch _ _"]


class StageLoss(NamedTuple):  # a tuple, for FSDP2 looks for the tensors of a module's output
    """The training loss, the share of tokens of the last sequence predicted right, and its likeliest tokens."""

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    predicted_ids: Int[Tensor, "batch time quantizers"]


class Stage(nn.Module):
    """A decoder from conditioning sequences to the sequence that the stage predicts."""

    name: str
    default_sampling: Sampling
    _no_split_modules = ("Block",)  # what accelerate shards one by one (FSDP2)

    def __init__(self, sequences: Sequence[TokenSequence], config: TransformerConfig) -> None:
        super().__init__()
        self.decoder = TokenSequenceDecoder(sequences, config)

    @property
    def sequences(self) -> tuple[TokenSequence, ...]:
        """The conditioning sequences, then the predicted one."""
        return self.decoder.sequences

    @property
    def predicted(self) -> TokenSequence:
        """The sequence that the stage predicts."""
        return self.sequences[-1]

    def in_precision(self, precision: torch.dtype) -> "Stage":
        """The same stage, its weights in `precision`, for generation.

        The position bias stays in float32: bfloat16 cannot tell large distances apart.
        """
        self.to(precision)
        self.decoder.transformer.position_bias.float()
        return self

    def forward(
        self, ids: Sequence[Ids], weights: Sequence[float] | None = None, seeds: Seeds | None = None
    ) -> StageLoss:
        """The training forward: sum of w_i n_i CE_i over the sum of n_i with w_i > 0.

        `weights` defaults to 0 for the conditioning and 1 for the last sequence. In training mode 15% of all
        key positions, never the first, are hidden at random per example (forgetful masking); this and dropout follow
        the examples' `seeds`, which are drawn where none are given.
        """
        weights = [0.0] * (len(ids) - 1) + [1.0] if weights is None else weights
        logits, labels = self.training_logits(ids, [weight > 0 for weight in weights], seeds)
        losses, counts = [], 0
        for scores, wanted, weight in zip(logits, labels, weights, strict=True):
            if weight > 0:
                assert scores is not None
                losses.append(
                    weight * functional.cross_entropy(scores.flatten(0, 1).float(), wanted.flatten(), reduction="sum")
                )
                counts += wanted.numel()
        assert logits[-1] is not None
        tokens = logits[-1][:, :-1, :-1].argmax(dim=-1)
        accuracy = (tokens == labels[-1][:, :-1]).float().mean()
        by_time = tokens.unflatten(1, (-1, self.predicted.quantizers))
        return StageLoss(torch.stack(losses).sum() / counts, accuracy, by_time)

    def training_logits(
        self, ids: Sequence[Ids], wanted: Sequence[bool], seeds: Seeds | None = None
    ) -> tuple[list[Float[Tensor, "batch _ _"] | None], list[Int[Tensor, "batch _"]]]:
        """Logits (None where not wanted, and always given for the last) and labels of every sequence, end ids
        included."""
        labels = [append_end(flatten_ids(tokens), kind) for tokens, kind in zip(ids, self.sequences, strict=True)]
        fed = [*labels[:-1], labels[-1][:, :-1]]
        mask = conditioning_mask(self.sequences, fed)
        if self.training:
            if seeds is None:
                seeds = torch.randint(2**31, mask.shape[:1], dtype=torch.int32, device=mask.device)
            mask = mask & ~forgotten(seeds, mask.shape[1])
        hidden = self.decoder(fed, mask, seeds)
        last = len(hidden) - 1
        logits = [self.decoder.logits(i, output) if wanted[i] or i == last else None for i, output in enumerate(hidden)]
        return logits, labels

    @torch.inference_mode()
    def generate(
        self,
        conditioning: Sequence[Ids],
        known: Int[Tensor, "batch known quantizers"],
        frames: int,
        sampling: Sampling,
        streams: list[torch.Generator],
        advanced: Callable[[int], None],
    ) -> Int[Tensor, "batch frames quantizers"]:
        """The `frames` time steps that follow `known`, within one window that begins where `known` begins.

        Sees what training saw: the end ids of the conditioning are present, and hidden. Row b draws from
        `streams[b]`. `advanced` is told after every time step.
        """
        quantizers = self.predicted.quantizers
        fixed = [append_end(flatten_ids(t), kind) for t, kind in zip(conditioning, self.sequences[:-1], strict=True)]
        tokens = flatten_ids(known)
        noise = uniform_noise(streams, frames * quantizers, self.predicted.codebook_size + 1, known.device)
        steps = _Steps(self.decoder, fixed, tokens, frames * quantizers)
        for number in range(frames * quantizers):
            steps.append(sample(steps.logits(), noise[number], sampling))
            if (number + 1) % quantizers == 0:
                advanced(1)
        return steps.tokens[:, tokens.shape[1] :].unflatten(1, (-1, quantizers))


class SemanticStage(Stage):
    """CLAP tokens to semantic tokens."""

    name = "semantic"
    default_sampling = Sampling(temperature=1.0)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__((clap_sequence(config), semantic_sequence(config)), config.semantic_cfg)


class CoarseStage(Stage):
    """CLAP and semantic tokens to the first EnCodec codebooks."""

    name = "coarse"
    default_sampling = Sampling(temperature=0.95)

    def __init__(self, config: ModelConfig) -> None:
        sequences = (clap_sequence(config), semantic_sequence(config), coarse_sequence(config))
        super().__init__(sequences, config.coarse_cfg)


class FineStage(Stage):
    """CLAP and coarse tokens to the remaining EnCodec codebooks."""

    name = "fine"
    default_sampling = Sampling(temperature=0.4)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__((clap_sequence(config), coarse_sequence(config), fine_sequence(config)), config.fine_cfg)


# Settings of a stage that its weights can be used with only as they were trained.
_ARCHITECTURE = ("dim", "depth", "heads", "use_conv_ff", "non_causal_prefix_size", "relative_position_bias_type")


def build_stage(name: StageName, config: ModelConfig) -> Stage:
    """Stage `name` with fresh weights."""
    stages: dict[StageName, Callable[[ModelConfig], Stage]] = {
        "semantic": SemanticStage,
        "coarse": CoarseStage,
        "fine": FineStage,
    }
    return stages[name](config)


def load_stage(path: Path, name: StageName, config: ModelConfig, device: torch.device) -> Stage:
    """Stage `name` with the weights at `path`, ours or released, in evaluation mode. Raises UserError."""
    weights = load_weights(path, name)
    if weights.model_config is not None:
        there, here = weights.model_config.stage(name), config.stage(name)
        differing = [
            f"{key} {getattr(there, key)} there, {getattr(here, key)} here"
            for key in _ARCHITECTURE
            if getattr(there, key) != getattr(here, key)
        ]
        if differing:
            raise UserError(f"{weights.path}: made with another {name}_cfg: {'; '.join(differing)}")
    stage = build_stage(name, config)
    load_into(stage.decoder, weights)
    return stage.to(device).eval()


def clap_sequence(config: ModelConfig) -> TokenSequence:
    """The residual VQ's tokens of one CLAP embedding: one time step."""
    return TokenSequence("clap", config.clap_rvq_cfg.codebook_size, config.clap_rvq_cfg.rq_num_quantizers)


def semantic_sequence(config: ModelConfig) -> TokenSequence:
    """MERT k-means ids."""
    return TokenSequence("semantic", config.hubert_kmeans_cfg.codebook_size, 1)


def coarse_sequence(config: ModelConfig) -> TokenSequence:
    """EnCodec's first codebooks."""
    return TokenSequence("coarse", config.encodec_cfg.codebook_size, config.global_cfg.num_coarse_quantizers)


def fine_sequence(config: ModelConfig) -> TokenSequence:
    """EnCodec's remaining codebooks."""
    return TokenSequence("fine", config.encodec_cfg.codebook_size, config.global_cfg.num_fine_quantizers)


def forgotten(seeds: Seeds, positions: int) -> Bool[Tensor, "batch positions"]:
    """15% of the positions of every example at random, never the first."""
    order = noise(seeds, positions)
    order[:, 0] = torch.iinfo(order.dtype).min
    chosen = order.topk(min(int(positions * FORGETFUL_MASK_SHARE), positions - 1), dim=1).indices
    return torch.zeros(order.shape, dtype=torch.bool, device=seeds.device).scatter(1, chosen, True)


class _Steps:
    """One window's generation: what is known, and the cache that makes the next token cost one position."""

    def __init__(
        self,
        decoder: TokenSequenceDecoder,
        conditioning: list[Int[Tensor, "batch _"]],
        tokens: Int[Tensor, "batch known"],
        room: int,
    ) -> None:
        self.decoder = decoder
        self.conditioning = conditioning
        self.tokens = tokens
        self.last = len(conditioning)
        self.room = room
        self.hidden, self.cache = self._prefill()

    def logits(self) -> Float[Tensor, "batch classes"]:
        """Scores of the next token."""
        return self.decoder.next_logits(self.last, self.hidden, self.tokens.shape[1])

    def append(self, ids: Int[Tensor, "batch"]) -> None:
        """Takes the next token; the one that fills the room is not run through the network."""
        first = self.tokens.shape[1]
        self.tokens = torch.cat((self.tokens, ids.unsqueeze(1)), dim=1)
        self.room -= 1
        if self.room == 0:
            return
        if self.cache.length < self.decoder.transformer.non_causal_prefix_size:
            # Within the non-causal prefix a new position changes the earlier ones.
            self.hidden, self.cache = self._prefill()
        else:
            embedded = self.decoder.embed_tokens(self.last, ids.unsqueeze(1), first)
            self.hidden = self.decoder.transformer.extend(embedded, self.cache)[:, -1]

    def _prefill(self) -> tuple[Float[Tensor, "batch dim"], Cache]:
        return self.decoder.prefill([*self.conditioning, self.tokens], self.room)
