"""Initialises HuBERT as an onset bank: features are the log loudness of bands, and the strength of onsets.

Behind the front end's filters the usual norm makes every frame equally loud: a repeated note leaves no trace, and
k-means over such features separates timbres but hardly any rhythm. An onset bank keeps loudness, and two layers of the
transformer compute a spectral flux:

1. the positional convolution puts the previous frame beside each frame;
2. the first layer's feed-forward network takes logarithms of both, as piecewise linear functions with a kink every two
   octaves of loudness;
3. the second layer's subtracts one from the other, keeps rises of more than half a nat, and sums them to one number,
   the onset strength, large enough to matter to k-means.

Norms within the transformer divide by a constant: two constant channels outweigh all others. Attention starts without
effect.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import HubertModel

from demo.backbones.front_end import FEWEST_CHANNELS, set_front_end
from open_musiclm.errors import UserError

_LOUDNESS = 20.0  # of the projection: GELU hardly changes values well above 1
_QUIETEST = 0.02  # loudness before that factor that still makes a difference; music of unit variance has about 1
_KINKS, _KINK_RATIO = 5, 4.0
_SHARPNESS = 8.0  # of a kink: GELU is as good as a rectifier this far from it
_LEAST_RISE = 0.5  # nats
_RISE_SHARPNESS = 4.0
_ONSET_WEIGHT = 1.0  # of the sum of all bands' rises, relative to a band's logarithm
# The two channels that outweigh the others: before the transformer, and what either layer adds.
_CONSTANT, _CONSTANTS_ADDED = 20000.0, (200.0, 20.0)
_LAYERS = 2


@dataclass(frozen=True)
class _Places:
    """The features' places: each band's loudness now and in the previous frame, in one group of the positional
    convolution; two constants, an empty feature, and the onset strength."""

    now: list[int]
    before: list[int]
    plus: int
    minus: int
    empty: int
    onset: int


@torch.no_grad()
def start_as_onset_bank(model: HubertModel) -> None:
    """Sets front end, projection and two layers of a new model that has no norm before the projection.

    The second layer's output is the onset bank. Raises UserError if the model is too small.
    """
    if model.config.feat_proj_layer_norm:
        raise UserError(
            "architecture: feature_projection_norm true removes the loudness that onsets are found by; set false"
        )
    channels = model.config.conv_dim[-1]
    if channels < FEWEST_CHANNELS:
        raise UserError(
            f"architecture: front_end_channels {channels} is too small for onsets; they need {FEWEST_CHANNELS} or more"
        )
    sums = set_front_end(model)
    places = _places(model, len(sums))
    projection: Any = model.feature_projection.projection
    projection.weight.zero_()
    projection.weight[places.now] = _LOUDNESS * sums
    projection.bias.zero_()
    projection.bias[[places.plus, places.minus]] = torch.tensor((_CONSTANT, -_CONSTANT))
    _set_previous_frame(model.encoder.pos_conv_embed.conv, places)
    layers: list[Any] = list(model.encoder.layers[:_LAYERS])
    for layer in layers:
        layer.attention.out_proj.weight.zero_()
        layer.attention.out_proj.bias.zero_()
    constant_share = math.sqrt(2 / projection.out_features)  # a norm scales two equally large channels to 1 / this
    _set_logarithms(layers[0].feed_forward, places, constant_share * _CONSTANT / _LOUDNESS)
    _set_onsets(layers[1].feed_forward, places, 1 + constant_share * _CONSTANTS_ADDED[0])


def _places(model: HubertModel, bands: int) -> _Places:
    features, groups = model.config.hidden_size, model.config.num_conv_pos_embedding_groups
    width, in_a_group = features // groups, -(-bands // groups)
    needed = {
        "layers": (_LAYERS, model.config.num_hidden_layers),
        "feed_forward_dim": (2 * _KINKS * bands, model.config.intermediate_size),
        "feature_dim": (max(2 * in_a_group * groups, 2 * bands + 4), width * groups),
    }
    for name, (fewest, found) in needed.items():
        if found < fewest:
            raise UserError(
                f"architecture: {name} {found} is too small for onsets; {bands} bands need {fewest} or more"
            )
    now = [band % groups * width + band // groups for band in range(bands)]
    before = [place + in_a_group for place in now]
    plus, minus, empty, onset = [place for place in range(features) if place not in {*now, *before}][:4]
    return _Places(now, before, plus, minus, empty, onset)


def _set_previous_frame(position: Any, places: _Places) -> None:
    """Sets the positional convolution to a delay of one frame."""
    tap = position.kernel_size[0] // 2 - 1
    weight = torch.zeros_like(position.parametrizations.weight.original1[:, :, tap])
    for now, before in zip(places.now, places.before, strict=True):
        weight[before, now % weight.shape[1]] = 1.0
    sizes, directions = position.parametrizations.weight.original0, position.parametrizations.weight.original1
    directions.normal_()  # of size 0 but for one
    directions[:, :, tap] = weight
    sizes.zero_()
    sizes[:, :, tap] = weight.norm()
    position.bias.zero_()


def _set_logarithms(network: Any, places: _Places, unit: float) -> None:
    """log(1 + loudness / `_QUIETEST`) of this frame, negated for the previous one; a loudness of `unit` is 1."""
    into, out = _emptied(network)
    kinks = [0.0, *(_QUIETEST * _KINK_RATIO ** (k + 1) for k in range(_KINKS))]
    heights = [math.log1p(kink / _QUIETEST) for kink in kinks]
    slopes = [(heights[k + 1] - heights[k]) / (kinks[k + 1] - kinks[k]) for k in range(_KINKS)]
    hidden = 0
    for k, (slope, earlier) in enumerate(zip(slopes, (0.0, *slopes), strict=False)):
        sharpness = _SHARPNESS / (kinks[k + 1] - kinks[k])
        for sign, channels in ((1.0, places.now), (-1.0, places.before)):
            for channel in channels:
                into.weight[hidden, channel] = sharpness * unit
                into.weight[hidden, places.empty] = -sharpness * unit  # the norm's shift
                into.bias[hidden] = -sharpness * kinks[k]
                out.weight[channel, hidden] = sign * (slope - earlier) / sharpness
                hidden += 1
    _add_constants(out, places, _CONSTANTS_ADDED[0])


def _set_onsets(network: Any, places: _Places, unit: float) -> None:
    """Sums the rises, and removes the previous frame. A logarithm of `unit` is 1."""
    into, out = _emptied(network)
    hidden = 0
    for now, before in zip(places.now, places.before, strict=True):
        into.weight[hidden, [now, before]] = _RISE_SHARPNESS * unit
        into.weight[hidden, places.empty] = -2 * _RISE_SHARPNESS * unit
        into.bias[hidden] = -_RISE_SHARPNESS * _LEAST_RISE
        out.weight[places.onset, hidden] = _ONSET_WEIGHT / (_RISE_SHARPNESS * unit)
        for unit_number, sign in ((hidden + 1, 1.0), (hidden + 2, -1.0)):  # GELU(x) - GELU(-x) = x
            into.weight[unit_number, before] = sign * unit
            into.weight[unit_number, places.empty] = -sign * unit
            out.weight[before, unit_number] = -sign / unit
        hidden += 3
    _add_constants(out, places, _CONSTANTS_ADDED[1])


def _emptied(network: Any) -> tuple[Any, Any]:
    into, out = network.intermediate_dense, network.output_dense
    for parameter in (into.weight, into.bias, out.weight, out.bias):
        parameter.zero_()
    return into, out


def _add_constants(out: Any, places: _Places, size: float) -> None:
    out.bias[[places.plus, places.minus]] = torch.tensor((size, -size))
