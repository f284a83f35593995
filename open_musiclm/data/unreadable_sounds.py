"""Tells how many sound files of a folder have formats that cannot be read here, such as m4a."""

import os
from pathlib import Path

from open_musiclm.audio import find_unreadable_sounds
from open_musiclm.terminal import print_stderr


def print_unreadable(folder: Path) -> None:
    """Prints one line with their number, if there are any; of several processes only the first one prints.

    Without this line nobody would notice them: they are not tried, so no list of failures has them. Raises UserError
    if a folder cannot be read.
    """
    if os.environ.get("RANK", "0") != "0":  # set by `accelerate launch`, also before accelerate's own state exists
        return
    count = len(find_unreadable_sounds(folder))
    if count:
        files = "1 sound file has a format" if count == 1 else f"{count} sound files have formats"
        them = "it" if count == 1 else "them"
        print_stderr(f"{folder}: {files} that cannot be read here; convert {them}; scripts/check_data.py lists {them}")
