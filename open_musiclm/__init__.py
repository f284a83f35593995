"""Text to music by MusicLM's recipe with open parts: CLAP, MERT + k-means and EnCodec.

from open_musiclm import MusicLM
model = MusicLM.from_pretrained("demo/bundle")
wave, = model.generate("fast violin tune", duration=8)
"""

from typing import TYPE_CHECKING

from open_musiclm.environment import complete_environment

complete_environment()

if TYPE_CHECKING:
    from open_musiclm.config import GenerationConfig
    from open_musiclm.generation.musiclm import MusicLM

__version__ = "0.3.0"
__all__ = ["GenerationConfig", "MusicLM", "__version__"]


def __getattr__(name: str) -> object:
    """Imports torch only when the model is asked for."""
    if name == "MusicLM":
        from open_musiclm.generation.musiclm import MusicLM

        return MusicLM
    if name == "GenerationConfig":
        from open_musiclm.config import GenerationConfig

        return GenerationConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
