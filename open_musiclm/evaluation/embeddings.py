"""CLAP and MERT as measures: the vectors for comparing sets."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm import audio
from open_musiclm.audio import Sound
from open_musiclm.config import HubertKmeansConfig
from open_musiclm.evaluation.measure import Measured, Vectors, identity_of
from open_musiclm.generation.prompts.prompt_embedder import PromptEmbedder
from open_musiclm.tokenizers.clap import Clap
from open_musiclm.tokenizers.clap_embedder import ClapEmbedder
from open_musiclm.tokenizers.mert import Mert

WINDOW_SECONDS, STEP_SECONDS = 10, 1  # fadtk's
LONGEST_MERT_SECONDS = 30
_WINDOWS_AT_ONCE = 64
MAD_MODEL, MAD_LAYER = "m-a-p/MERT-v1-330M", 24


def frechet_windows(clap: Clap, wave: Float[Tensor, "samples"]) -> Float[Tensor, "windows dim"]:
    """Embeddings of windows of 10 s of a wave at CLAP's rate, one every second, of which those that reach beyond the
    end are filled with zeros, as fadtk does. Computed in segments, so that memory is bounded."""
    window, step = WINDOW_SECONDS * clap.sample_hz, STEP_SECONDS * clap.sample_hz
    count = math.ceil(len(wave) / step)
    padded = audio.fit_length(wave, (count - 1) * step + window)
    embeddings = []
    for first in range(0, count, _WINDOWS_AT_ONCE):
        last = min(first + _WINDOWS_AT_ONCE, count) - 1
        segment = padded[first * step : last * step + window]
        embeddings.append(clap.embed_windows([segment], window, step))
    return torch.cat(embeddings)


class ClapMeasure:
    """`windows`: those of `frechet_windows`. `whole`: one embedding of the sound, as prompts are compared with it: the
    mean over windows of `window_seconds` that follow each other, of length 1; a shorter sound is repeated. `prompts`
    embeds those.
    """

    batch = 8
    finite = True

    def __init__(self, clap: Clap, window_seconds: float, name: str) -> None:
        self.clap, self.name = clap, name
        self.embedder = ClapEmbedder(clap, window_seconds, clap.sample_hz)
        self.prompts = PromptEmbedder(self.embedder)
        what = f"clap 2, windows of {WINDOW_SECONDS} s, whole of {window_seconds} s, {clap.sample_hz} Hz"
        self.identity = identity_of(what, clap)

    def measure(self, sounds: Sequence[Sound]) -> list[Measured]:
        """See the class."""
        hz, device = self.clap.sample_hz, self.clap.model.device
        waves = [audio.resampled(sound, hz) for sound in sounds]
        windows = [frechet_windows(self.clap, wave.to(device)).cpu() for wave in waves]
        whole = [self.embedder.embed_sound(Sound(wave, hz)).cpu() for wave in waves]
        return [{"windows": own, "whole": one.unsqueeze(0)} for own, one in zip(windows, whole, strict=True)]


class MertMeasure:
    """`maximum`: the largest value over time of each feature of the layer, one vector a sound. `seconds`: the mean of
    the features over every second.

    The sound is normalised over its whole length; longer ones than 30 s are computed in parts.
    """

    batch = 8
    finite = True

    def __init__(self, mert: Mert, config: HubertKmeansConfig) -> None:
        self.mert, self._per_second = mert, config.output_hz
        self.name = f"{config.model_name}, layer {config.embed_layer}"
        self.is_mad = config.model_name == MAD_MODEL and config.embed_layer == MAD_LAYER and not config.normalize_embeds
        decisive = config.model_dump_json(exclude={"model_name", "codebook_size", "trust_remote_code"})
        self.identity = identity_of(f"mert 2, {decisive}", mert)

    def measure(self, sounds: Sequence[Sound]) -> list[Measured]:
        """See the class; sounds of one length are one batch."""
        waves = [audio.semantic_input(sound, self.mert.sample_hz) for sound in sounds]
        by_length: dict[int, list[int]] = defaultdict(list)
        for place, wave in enumerate(waves):
            by_length[len(wave)].append(place)
        measured: dict[int, Measured] = {}
        for places in by_length.values():
            batch = torch.stack([waves[place] for place in places]).to(next(self.mert.parameters()).device)
            features = torch.cat([self.mert.features(part).cpu() for part in self._parts(batch)], dim=1)
            measured |= zip(places, map(self._vectors, features), strict=True)
        return [measured[place] for place in range(len(sounds))]

    def _parts(self, waves: Float[Tensor, "batch samples"]) -> Iterator[Float[Tensor, "batch _"]]:
        """Parts of 30 s; what would be too short for a frame is left out, or repeated where nothing else is there."""
        shortest = self._shortest()
        if waves.shape[1] < shortest:
            waves = waves.repeat(1, math.ceil(shortest / waves.shape[1]))[:, :shortest]
        for part in waves.split(LONGEST_MERT_SECONDS * self.mert.sample_hz, dim=1):
            if part.shape[1] >= shortest:
                yield part

    def _shortest(self) -> int:
        samples = 1
        while not self.mert.frames(samples):
            samples *= 2
        return samples

    def _vectors(self, features: Float[Tensor, "time dim"]) -> dict[str, Vectors]:
        seconds = torch.stack([part.mean(0) for part in features.split(self._per_second)])
        return {"maximum": features.amax(0, keepdim=True), "seconds": seconds}
