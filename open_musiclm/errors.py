"""The exception and the warning that are meant for the person at the terminal."""


class UserError(Exception):
    """An error that the user can fix: a wrong argument, config, sound file or checkpoint.

    The message is one line that names the file, key or argument, says what was found and what to do.
    Scripts print it without a traceback and exit with status 2.
    """


class UserNotice(UserWarning):
    """A warning for the user about a result, one line. Scripts print it without file and line number."""


class SoundError(UserError):
    """A sound file that cannot be used; the message names the file and what is wrong with it."""


def first_line(error: Exception) -> str:
    """The first line of a library's error, at most 200 characters; its type if it has no text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
