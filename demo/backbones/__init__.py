"""Initialisations of the demo's MERT, and training that makes its CLAP tell instruments and tempi apart."""
