"""Folders of sound: aligned crops for training, and preprocessed tokens on disk."""
