"""Text-to-music generation after MusicLM, with open models: CLAP, MERT + k-means and EnCodec.

from open_musiclm import MusicLM
model = MusicLM.from_pretrained("demo/bundle")
wave, = model.generate("fast violin tune", duration=8)
"""

from importlib import import_module
from typing import TYPE_CHECKING

from open_musiclm.environment import complete_environment

complete_environment()

if TYPE_CHECKING:
    from open_musiclm.config import GenerationConfig
    from open_musiclm.generation.musiclm import MusicLM
    from open_musiclm.generation.prompts.prompting import Mixture, Prompt
    from open_musiclm.generation.prompts.story import Story

__version__ = "0.3.0"
__all__ = ["GenerationConfig", "Mixture", "MusicLM", "Prompt", "Story", "__version__"]


def __getattr__(name: str) -> object:
    """Imports torch only when the model is used."""
    if name == "MusicLM":
        from open_musiclm.generation.musiclm import MusicLM

        return MusicLM
    if name == "GenerationConfig":
        from open_musiclm.config import GenerationConfig

        return GenerationConfig
    if name in ("Mixture", "Prompt"):
        return getattr(import_module("open_musiclm.generation.prompts.prompting"), name)
    if name == "Story":
        return getattr(import_module("open_musiclm.generation.prompts.story"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
