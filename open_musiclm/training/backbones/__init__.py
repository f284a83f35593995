"""Training of the frozen models: EnCodec, CLAP and MERT."""
