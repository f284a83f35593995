"""From any folder of music to a clean data set: what scripts/prepare_dataset.py runs."""
