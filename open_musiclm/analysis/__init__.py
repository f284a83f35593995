"""An atlas of CLAP's space: what its embeddings and tokens of sound and text carry."""
