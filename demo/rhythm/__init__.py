"""A scorer of rhythm beside CLAP, how it is fitted, and search with it."""
