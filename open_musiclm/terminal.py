"""Lines for the person at the terminal while something is worked on."""

import sys
from contextlib import suppress

from tqdm import tqdm


def tell(line: str) -> None:
    """Writes a line to stderr, above a bar if there is one.

    It is lost where nobody reads any more, such as `| tee` after Ctrl-C: work must not end for that before it is saved.
    """
    with suppress(OSError):
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()
