"""Generates the set that is evaluated: prompts to a folder of waves and their JSONs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from open_musiclm.errors import UserError
from open_musiclm.generation.generate_files import generate_files
from open_musiclm.generation.musiclm import MusicLM


def generate_set(model: MusicLM, prompts: Sequence[str], folder: Path, parts: Mapping[str, str]) -> Path:
    """Writes the best samples of each prompt, as the model's generation config says; returns the folder.

    Raises UserError, also if the folder holds something: it would be evaluated too.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"{folder}: not empty; evaluate what it holds without --prompts, or name another --results_folder"
        )
    for _ in generate_files(model, prompts, folder, parts):
        pass
    return folder
