"""CLAP embeddings of prompts: of texts, of sounds, and of weighted mixtures."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from open_musiclm.errors import UserError
from open_musiclm.generation.prompts.prompting import Mixture, Prompt, SteadyPrompt, StyleSound
from open_musiclm.tokenizers.clap_embedder import ClapEmbedder
from open_musiclm.tokenizers.text_correction import TextCorrection

_MOST_SOUNDS = 64
_SHORTEST_SUM = 1e-3


class PromptEmbedder:
    """Embeds prompts in the form of `check_prompts`; every text and every sound once.

    With a correction texts are moved towards sounds before they are mixed.
    """

    def __init__(self, embedder: ClapEmbedder, correction: TextCorrection | None = None) -> None:
        self.embedder, self.correction = embedder, correction
        self._sounds: dict[str, Float[Tensor, "dim"]] = {}

    def embed(self, prompts: Sequence[SteadyPrompt]) -> Float[Tensor, "batch dim"]:
        """Embeddings of length 1. Raises UserError if the parts of a mixture cancel each other."""
        texts = [text for prompt in prompts for text in _texts(prompt)]
        if texts:
            self.embedder.embed_text(texts)  # all at once, and kept
        return torch.stack([self._embed(prompt) for prompt in prompts])

    def _embed(self, prompt: SteadyPrompt) -> Float[Tensor, "dim"]:
        if isinstance(prompt, str):
            text = self.embedder.embed_text([prompt])
            return (text if self.correction is None else self.correction(text))[0]
        if isinstance(prompt, Mixture):
            weights = [getattr(part, "weight", 1.0) for part in prompt.parts]
            return _mean([self._embed(part) for part in prompt.parts], weights, prompt)
        halves = [] if prompt.text is None else [self._embed(prompt.text)]
        if isinstance(prompt.audio, StyleSound):
            halves.append(self._embed_sound(prompt.audio))
        return _mean(halves, [1.0] * len(halves), prompt)

    def _embed_sound(self, sound: StyleSound) -> Float[Tensor, "dim"]:
        if sound.name not in self._sounds:
            if len(self._sounds) >= _MOST_SOUNDS:
                self._sounds.clear()
            self._sounds[sound.name] = self.embedder.embed_sound(sound)
        return self._sounds[sound.name]


def _texts(prompt: SteadyPrompt) -> Iterator[str]:
    """All texts within a prompt."""
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, Mixture):
        for part in prompt.parts:
            yield from _texts(part)
    elif prompt.text is not None:
        yield prompt.text


def _mean(
    embeddings: Sequence[Float[Tensor, "dim"]], weights: Sequence[float], prompt: Prompt | Mixture
) -> Float[Tensor, "dim"]:
    """The normalised weighted mean; a single embedding is returned unchanged."""
    if len(embeddings) == 1:
        return embeddings[0]
    together = torch.stack(list(embeddings))
    shares = together.new_tensor([weight / sum(weights) for weight in weights])
    mean = (shares.unsqueeze(1) * together).sum(dim=0)
    if float(mean.norm()) < _SHORTEST_SUM:
        raise UserError(f"prompt {str(prompt)[:40]!r}: its parts cancel each other; change a weight")
    return torch.nn.functional.normalize(mean, dim=0)
