"""The mean over time of every layer of MERT."""

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import HubertModel

from open_musiclm import audio
from open_musiclm.audio import Sound
from open_musiclm.config import ModelConfig
from open_musiclm.tokenizers.mert import mert_directory
from open_musiclm.tokenizers.mert_directory import check_consent

_WINDOWS_AT_ONCE = 4


class MertLayers:
    """The MERT that `hubert_kmeans_cfg` names, with all its layers; sound passes in windows of the semantic stage."""

    def __init__(self, model: HubertModel, sample_hz: int, window_seconds: float, device: torch.device) -> None:
        self.model: HubertModel = model.to(device)  # type: ignore[arg-type] # transformers wraps it
        self.sample_hz, self.window = sample_hz, audio.samples_of(window_seconds, sample_hz)
        self.device = device

    @classmethod
    def load(cls, config: ModelConfig, device: torch.device, trust_remote_code: bool = False) -> "MertLayers":
        """See `Mert.load`. Raises UserError."""
        section = config.hubert_kmeans_cfg
        check_consent(section.trust_remote_code, trust_remote_code)
        model = mert_directory(config).load(trust_remote_code)
        return cls(model, section.target_sample_hz, config.window_seconds("semantic"), device)

    @torch.no_grad()
    def embed(self, sound: Sound) -> Float[Tensor, "layers features"]:
        """The input of the first transformer layer, then the output of each; sound shorter than a window is
        repeated."""
        wave = audio.semantic_input(sound, self.sample_hz)
        windows = torch.stack(audio.windows_of(audio.repeat_to(wave, max(self.window, len(wave))), self.window))
        means = [
            torch.stack([layer.mean(dim=1) for layer in self.model(part, output_hidden_states=True).hidden_states], 1)
            for part in windows.to(self.device).split(_WINDOWS_AT_ONCE)
        ]
        return torch.cat(means).mean(dim=0)
