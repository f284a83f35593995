"""The three stages: their token sequences, and their training loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from open_musiclm.checkpoints import Weights, load_into, load_weights
from open_musiclm.config import AcousticConfig, ModelConfig, StageName, TransformerConfig
from open_musiclm.errors import UserError
from open_musiclm.models.example_rng import Seeds, derive_seeds, random_int32
from open_musiclm.models.flat_layout import FlatLayout
from open_musiclm.models.frames_layout import FramesLayout
from open_musiclm.models.scheduled_sampling import sampled_frames, sampled_tokens
from open_musiclm.models.token_layout import PADDING, Ids, TokenLayout
from open_musiclm.tokens import TokenStream, stage_streams

FORGETFUL_MASK_SHARE = 0.15
_CONDITION = 1 << 16  # the number that derive_seeds gets for condition dropout; blocks have the numbers below


class StageLoss(NamedTuple):  # a tuple, for FSDP2 looks for the tensors of a module's output
    """The training loss, the accuracy on the tokens of the last sequence, and its most likely tokens."""

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    predicted_ids: Int[Tensor, "batch time quantizers"]


class Stage(nn.Module):
    """A decoder from conditioning sequences to the sequence that the stage predicts."""

    _no_split_modules = ("Block",)  # what accelerate shards one by one (FSDP2)

    def __init__(self, name: StageName, sequences: Sequence[TokenStream], config: TransformerConfig) -> None:
        super().__init__()
        self.name = name
        self.layout = token_layout(sequences, config)
        self.condition_dropout = config.condition_dropout
        self.scheduled_sampling = config.scheduled_sampling

    @property
    def sequences(self) -> tuple[TokenStream, ...]:
        """The conditioning sequences, then the predicted one."""
        return self.layout.sequences

    @property
    def predicted(self) -> TokenStream:
        """The sequence that the stage predicts."""
        return self.sequences[-1]

    def forward(
        self, ids: Sequence[Ids], weights: Sequence[float] | None = None, seeds: Seeds | None = None
    ) -> StageLoss:
        """The training forward: sum of w_i n_i CE_i over the sum of n_i with w_i > 0.

        `weights` defaults to 0 for the conditioning and 1 for the last sequence. In training mode 15% of all
        key positions, never the first, are hidden at random per example (forgetful mask); with probability
        `condition_dropout` all conditioning of an example is hidden; with probability `scheduled_sampling` some frames
        of its history are drawn by the stage. These and dropout follow the examples' `seeds`, random ones where none
        are given; only dropout of attention weights does not, and is random.
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
        count = ids[-1].shape[1] * ids[-1].shape[2]
        tokens = logits[-1][:, :count, : self.predicted.codebook_size].argmax(dim=-1)
        accuracy = (tokens == labels[-1][:, :count]).float().mean()
        return StageLoss(torch.stack(losses).sum() / counts, accuracy, tokens.view_as(ids[-1]))

    def training_logits(
        self, ids: Sequence[Ids], wanted: Sequence[bool], seeds: Seeds | None = None
    ) -> tuple[list[Float[Tensor, "batch _ _"] | None], list[Int[Tensor, "batch _"]]]:
        """Logits and labels of every sequence, see `TokenLayout.predictions`; in training mode with all that is random
        about it."""
        *conditioning, history = ids
        if self.training and seeds is None:
            seeds = torch.randint(2**31, (history.shape[0],), dtype=torch.int32, device=history.device)
        if self.training and seeds is not None and self.condition_dropout:
            hidden = dropped_conditions(seeds, self.condition_dropout).unsqueeze(2)
            conditioning = [torch.where(hidden, PADDING, tokens) for tokens in conditioning]
        if self.training and seeds is not None and self.scheduled_sampling:
            history = self._partly_sampled(conditioning, history, seeds)
        x, mask, times = self.layout.embed([*conditioning, history])
        if self.training and seeds is not None:
            mask = mask & ~forgetful_mask(seeds, mask.shape[1])
        return self.layout.predictions(self.layout.transformer(x, times, mask, seeds), ids, wanted)

    @torch.no_grad()
    def _partly_sampled(self, conditioning: Sequence[Ids], history: Ids, seeds: Seeds) -> Ids:
        """The history with some of its frames drawn from the stage's predictions, see `scheduled_sampling`."""
        ids = [*conditioning, history]
        x, mask, times = self.layout.embed(ids)
        logits = self.layout.predictions(self.layout.transformer(x, times, mask), ids, [False] * len(ids))[0][-1]
        assert logits is not None
        tokens = sampled_tokens(logits[:, : history[0].numel(), : self.predicted.codebook_size], seeds).view_as(history)
        frames = sampled_frames(seeds, self.scheduled_sampling, history.shape[1]).unsqueeze(2)
        # Older versions of torch keep the weights that autocast has converted without a gradient, and use them again.
        torch.clear_autocast_cache()
        return torch.where(frames, tokens, history)


def token_layout(sequences: Sequence[TokenStream], config: TransformerConfig) -> TokenLayout:
    """The layout that a stage's section names, with fresh weights."""
    if isinstance(config, AcousticConfig) and config.token_layout == "frames":
        return FramesLayout(sequences, config)
    return FlatLayout(sequences, config)


# Settings of a stage that must be those of its training.
_ARCHITECTURE = (
    "dim",
    "depth",
    "heads",
    "use_conv_ff",
    "non_causal_prefix_size",
    "relative_position_bias_type",
    "conditioning_time_bias",
    "token_layout",
    "conditioning_kernel",
    "conditioning_depth",
    "clap_per_frame",
)
# Parts that a stage may gain in further training, and the names of their weights.
_LATER_PARTS = {"conditioning_time_bias": "transformer.time_bias.", "clap_per_frame": "clap_per_frame."}


def build_stage(name: StageName, config: ModelConfig) -> Stage:
    """Stage `name` with fresh weights."""
    return Stage(name, stage_streams(name, config), config.stage(name))


def load_stage(path: Path, name: StageName, config: ModelConfig, device: torch.device) -> Stage:
    """Stage `name` with the weights at `path`, this project's or released, in evaluation mode. Raises UserError."""
    weights = load_weights(path, name)
    stage = _stage_with_weights(weights, name, config)
    if weights.model_config is not None:  # guidance needs what they were trained with
        stage.condition_dropout = weights.model_config.stage(name).condition_dropout
    return stage.to(device).eval()


def load_stage_to_train_on(path: Path, name: StageName, config: ModelConfig, device: torch.device) -> Stage:
    """As `load_stage`, but for training with `config`.

    If the config has `conditioning_time_bias` or `clap_per_frame`, and the weights do not, a new one is added. Raises
    UserError.
    """
    weights, section = load_weights(path, name), config.stage(name)
    new = [
        key
        for key, prefix in _LATER_PARTS.items()
        if getattr(section, key, False) and not any(there.startswith(prefix) for there in weights.tensors)
    ]
    if not new:
        return _stage_with_weights(weights, name, config).to(device)
    without = section.model_copy(update=dict.fromkeys(new, False))
    old = _stage_with_weights(weights, name, config.model_copy(update={f"{name}_cfg": without}))
    stage = build_stage(name, config)
    stage.layout.load_state_dict(stage.layout.state_dict() | old.layout.state_dict())
    return stage.to(device)


def load_stage_to_adapt(path: Path, name: StageName, config: ModelConfig, device: torch.device) -> Stage:
    """As `load_stage`, but for training an adapter with `config`. Raises UserError."""
    return _stage_with_weights(load_weights(path, name), name, config).to(device)


def _stage_with_weights(weights: Weights, name: StageName, config: ModelConfig) -> Stage:
    if weights.model_config is None and getattr(config.stage(name), "token_layout", "flat") != "flat":
        raise UserError(f"{weights.path}: released weights have token_layout flat, and the {name}_cfg here says frames")
    if weights.model_config is not None:
        there, here = weights.model_config.stage(name), config.stage(name)
        keys = [key for key in _ARCHITECTURE if hasattr(here, key)]
        if getattr(here, "token_layout", "flat") != getattr(there, "token_layout", "flat"):
            keys = ["token_layout"]  # all else follows from it
        differing = [
            f"{key} {getattr(there, key)} there, {getattr(here, key)} here"
            for key in keys
            if getattr(there, key) != getattr(here, key)
        ]
        if differing:
            raise UserError(f"{weights.path}: made with another {name}_cfg: {'; '.join(differing)}")
    stage = build_stage(name, config)
    load_into(stage.layout, weights)
    return stage


def forgetful_mask(seeds: Seeds, positions: int) -> Bool[Tensor, "batch positions"]:
    """The positions that are hidden in training: 15% of every example's at random, never the first."""
    order = random_int32(seeds, positions)
    order[:, 0] = torch.iinfo(order.dtype).min
    chosen = order.topk(min(int(positions * FORGETFUL_MASK_SHARE), positions - 1), dim=1).indices
    return torch.zeros(order.shape, dtype=torch.bool, device=seeds.device).scatter(1, chosen, True)


def dropped_conditions(seeds: Seeds, share: float) -> Bool[Tensor, "batch 1"]:
    """True for a `share` of the examples at random: those that are trained without their conditioning."""
    return random_int32(derive_seeds(seeds, _CONDITION), 1) < round((share - 0.5) * 2**32)
