"""How the demo's backbones begin, and what its CLAP learns besides."""
