"""A scorer of rhythm, beside CLAP."""
