"""Decoding: a stage generates the tokens of a window, with a KV cache."""
