"""Weights on disk, read without unpickling."""

from open_musiclm.checkpoints.weights import (
    BEST_NAME,
    CHECKPOINTS_FOLDER,
    Kind,
    Weights,
    check_new_output,
    chosen_step,
    differing_keys,
    find_weights,
    load_into,
    load_weights,
    save_weights,
    saved_steps,
    step_folder,
    trained_config,
    weights_name,
)
