"""From any tree of music to a folder that trains well: what scripts/prepare_dataset.py runs."""
