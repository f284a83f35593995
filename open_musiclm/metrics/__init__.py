"""Metrics of generated music and of codecs."""
