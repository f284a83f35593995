"""Evaluation of sets of clips against reference music, and of a model's memorization."""
