"""Checkpoints that the earlier implementation released."""
