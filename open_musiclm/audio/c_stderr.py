"""Silences C libraries: libmpg123 prints warnings about harmless tags and damage whenever a file is opened.

Only what C code prints through `stderr` is dropped. Python, and what writes to the file descriptor, is not affected:
another thread's progress bar or error stays.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# The variable behind C's `stderr`. Other systems have none, or none that can be set.
_NAMES = {"linux": "stderr", "darwin": "__stderrp"}


class _Switch:
    """Redirects the variable to the null device while any thread needs it."""

    def __init__(self, variable: ctypes.c_void_p, nowhere: int) -> None:
        self._variable, self._nowhere = variable, nowhere
        self._before: int | None = None
        self._users = 0
        self._lock = threading.Lock()

    def hide(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before, self._variable.value = self._variable.value, self._nowhere
            self._users += 1

    def show(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._variable.value = self._before

    def reset(self) -> None:
        """In a forked process, which has none of the other threads."""
        self._lock = threading.Lock()
        if self._users:
            self._users, self._variable.value = 0, self._before


def _switch() -> _Switch | None:
    """None on systems without such a variable."""
    try:
        library = ctypes.CDLL(None)
        if sys.platform == "linux" and not hasattr(library, "gnu_get_libc_version"):
            return None  # musl's is read-only
        variable = ctypes.c_void_p.in_dll(library, _NAMES[sys.platform])
        library.fopen.restype = ctypes.c_void_p
        nowhere = library.fopen(os.devnull.encode(), b"w")
    except (OSError, AttributeError, ValueError, KeyError, TypeError):
        return None
    return _Switch(variable, nowhere) if nowhere else None


_SWITCH = _switch()
if _SWITCH is not None and hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SWITCH.reset)


@contextmanager
def c_stderr_hidden() -> Iterator[None]:
    """Drops what C libraries print to `stderr` while the block runs; does nothing where that is not possible."""
    if _SWITCH is None:
        yield
        return
    _SWITCH.hide()
    try:
        yield
    finally:
        _SWITCH.show()
