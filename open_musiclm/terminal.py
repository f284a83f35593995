"""Terminal output. Printing never fails, so that no work is lost because of it.

Characters that the terminal's encoding lacks are escaped, also in file names that are not UTF-8. After a failed write
(a closed pipe, a full disk) the rest is dropped.
"""

import os
import shutil
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, TextIO

from open_musiclm.errors import UserNotice


def print_stdout(line: str) -> None:
    """Prints a result to standard output, unbuffered, above a progress bar if there is one."""
    _write(sys.stdout, line)


def print_stderr(line: str) -> None:
    """Prints a message to standard error, unbuffered, above a progress bar if there is one."""
    _write(sys.stderr, line)


def escape_what_cannot_be_encoded() -> None:
    """Makes both streams escape characters that they cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # None or replaced
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def describe(error: OSError) -> str:
    """One line about an OSError of a file or folder, such as a missing folder or a full disk."""
    if isinstance(error, shutil.Error):  # of copying a folder: (source, target, reason) of each file
        failures = error.args[0] if error.args and isinstance(error.args[0], list) else [error.args]
        return ": ".join(str(part) for part in failures[0]) + ("" if len(failures) == 1 else ", and others")
    place = error.filename2 or error.filename
    return f"{os.fsdecode(place)}: {error.strerror}" if isinstance(place, str | bytes | Path) else str(error)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A UserNotice as one line, other warnings as Python shows them."""
    if issubclass(category, UserNotice):
        print_stderr(f"warning: {message}")
    else:
        print_stderr(warnings.formatwarning(message, category, filename, lineno, line).rstrip())


def end_output() -> None:
    """Flushes standard output; Python itself would end with status 120 if that fails."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            _to_null_device(sys.stdout)


def _write(stream: Any, line: str) -> None:
    try:
        with _above_bars(stream):
            print(line, file=stream, flush=True)
    except UnicodeEncodeError as error:
        _write(stream, line.encode(error.encoding, "backslashreplace").decode(error.encoding))
    except (OSError, ValueError):  # ValueError: the stream is closed
        _to_null_device(stream)


def _above_bars(stream: Any) -> AbstractContextManager[None]:
    """Hides tqdm's bars in the block, if tqdm is loaded."""
    tqdm: Any = sys.modules.get("tqdm")
    return nullcontext() if tqdm is None or stream is None else tqdm.tqdm.external_write_mode(file=stream)


def _to_null_device(stream: Any) -> None:
    """Points the stream's descriptor to the null device: what it holds can then be flushed."""
    with suppress(AttributeError, OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
