"""Text to music by MusicLM's recipe with open parts: CLAP, MERT + k-means and EnCodec."""

__version__ = "0.3.0"
