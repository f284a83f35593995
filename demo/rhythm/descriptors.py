"""Describes the rhythm of a sequence of features: periodicity, peaks and roughness of two curves."""

import torch
from jaxtyping import Float
from torch import Tensor

_LAGS_SECONDS = (0.08, 2.0)
_PEAKS = (0.2, 0.35, 0.5, 0.7)  # heights, relative to the way from a curve's median to its highest peaks
_HIGHEST_PEAKS = 0.98  # quantile
_SMALLEST_SPREAD = 1e-6


def describe_rhythm(
    features: Float[Tensor, "batch time features"], direction: Float[Tensor, "features"], frame_hz: int
) -> Float[Tensor, "batch descriptors"]:
    """Descriptors of two curves: the features along `direction`, and the distance of each frame from the previous one.

    `frame_hz` is the rate of the features.
    """
    change = torch.linalg.vector_norm(features.diff(dim=1), dim=2)
    return torch.cat([_describe(features @ direction, frame_hz), _describe(change, frame_hz)], dim=1)


def descriptor_count(frame_hz: int) -> int:
    """The number of descriptors of features at a rate."""
    return 2 * (len(_lags(frame_hz)) + len(_PEAKS) + 2)


def _describe(curves: Float[Tensor, "batch time"], frame_hz: int) -> Float[Tensor, "batch descriptors"]:
    """Autocorrelation at each lag, peaks a second of each height, spread and roughness; of at least two frames."""
    centred = curves - curves.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    scaled = centred / (spread + _SMALLEST_SPREAD)
    time = curves.shape[1]
    periodicity = [
        (scaled[:, :-lag] * scaled[:, lag:]).sum(dim=1) / time if lag < time else scaled.new_zeros(len(scaled))
        for lag in _lags(frame_hz)
    ]
    median = scaled.median(dim=1, keepdim=True).values
    height = scaled.quantile(_HIGHEST_PEAKS, dim=1, keepdim=True) - median
    inner = scaled[:, 1:-1]
    peak = (inner > scaled[:, :-2]) & (inner >= scaled[:, 2:])
    peaks = [(peak & (inner > median + share * height)).sum(dim=1) * (frame_hz / time) for share in _PEAKS]
    roughness = scaled.diff(dim=1).abs().mean(dim=1)
    return torch.stack([*periodicity, *peaks, spread[:, 0], roughness], dim=1)


def _lags(frame_hz: int) -> range:
    """The lags of the autocorrelation, in frames."""
    shortest, longest = _LAGS_SECONDS
    return range(round(shortest * frame_hz), round(longest * frame_hz))
