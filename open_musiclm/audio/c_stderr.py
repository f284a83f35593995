"""Silence from C libraries: libmpg123 prints warnings for tags and damages that do no harm, at every opening.

Only what C code prints through `stderr` is dropped. Python, and what writes to the file descriptor, is not affected:
another thread's progress bar or error stays.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# The variable behind C's `stderr`. On other systems there is no such variable, or it cannot be set.
_NAMES = {"linux": "stderr", "darwin": "__stderrp"}


class _CStderr:
    """The variable, which any number of threads may point to nowhere at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._variable = self._nowhere = self._before = None
        try:
            library = ctypes.CDLL(None)
            if sys.platform == "linux":
                library.gnu_get_libc_version  # noqa: B018: that of musl is read-only
            variable = ctypes.c_void_p.in_dll(library, _NAMES[sys.platform])
            library.fopen.restype = ctypes.c_void_p
            self._nowhere = library.fopen(os.devnull.encode(), b"w")
            self._variable: Any = variable if self._nowhere else None
        except (OSError, AttributeError, ValueError, KeyError, TypeError):
            return

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

    def start_anew(self) -> None:
        """In a forked process, which has none of the other threads."""
        self._lock = threading.Lock()
        if self._users:
            self._users, self._variable.value = 0, self._before

    @property
    def is_there(self) -> bool:
        return self._variable is not None


_stderr = _CStderr()
if _stderr.is_there and hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stderr.start_anew)


@contextmanager
def c_stderr_hidden() -> Iterator[None]:
    """Drops what C libraries print to `stderr` while the block runs; does nothing where that is not possible."""
    if not _stderr.is_there:
        yield
        return
    _stderr.hide()
    try:
        yield
    finally:
        _stderr.show()
