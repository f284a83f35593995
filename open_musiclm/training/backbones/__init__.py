"""Training of the frozen models: codecs, decoders, CLAP and MERT."""
