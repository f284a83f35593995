"""The transformer, its token layouts, and the three stages."""
