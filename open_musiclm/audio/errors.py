"""The error of a sound file."""

from open_musiclm.errors import UserError


class SoundError(UserError):
    """A sound file that cannot be used; the message names the file and what is wrong with it."""
