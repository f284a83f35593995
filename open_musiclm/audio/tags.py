"""Tags of sound files."""

from contextlib import suppress
from pathlib import Path

import soundfile

from open_musiclm.audio.c_stderr import c_stderr_hidden


def artist_of(path: Path) -> str | None:
    """The artist that a file's tags name; None where they name none, or cannot be read."""
    unreadable = (soundfile.SoundFileError, OSError, UnicodeError, ValueError, TypeError)
    with suppress(*unreadable), c_stderr_hidden(), soundfile.SoundFile(path) as file:
        return " ".join(file.copy_metadata().get("artist", "").split()) or None
    return None
