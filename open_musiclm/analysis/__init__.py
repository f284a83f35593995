"""Analysis of CLAP's latent space: the information in its embeddings and tokens of sound and text."""
