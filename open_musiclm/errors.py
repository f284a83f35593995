"""The one exception that is meant for the person at the terminal."""


class UserError(Exception):
    """Something the user can mend: a wrong argument, config, sound file or checkpoint.

    The message is one line that names the file, key or argument, says what was found and what to do.
    Scripts print it without a traceback and exit with status 2.
    """
