"""File systems that can less than a local one, by a library that answers some calls itself (Linux, with gcc)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>

static int answer(const char *name) { const char *value = getenv(name); return value ? atoi(value) : 0; }

static int locked(const char *name, int file, int command, void *argument) {
    int (*real)(int, int, ...) = dlsym(RTLD_NEXT, name);
    int is_lock = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW;
    if (is_lock && answer("LOCKING_FAILS")) { errno = answer("LOCKING_FAILS"); return -1; }
    return real(file, command, argument);
}

#define LOCKING(name) int name(int file, int command, ...) { \
    va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest); \
    return locked(#name, file, command, argument); }
LOCKING(fcntl)
LOCKING(fcntl64)

int fsync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    struct stat status;
    if (answer("FOLDER_SYNC_FAILS") && !fstat(file, &status) && S_ISDIR(status.st_mode)) {
        errno = answer("FOLDER_SYNC_FAILS");
        return -1;
    }
    return real(file);
}
"""


def poor_file_system(folder: Path, **errors: int) -> dict[str, str]:
    """The environment of a process where locks, or syncs of folders, fail with these error numbers.

    Skips the test where it cannot be had.
    """
    compiler = shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs gcc and Linux")
    source, library = folder / "poor.c", folder / "poor.so"
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"], check=True)
    numbers = {name.upper(): str(number) for name, number in errors.items()}
    return {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", **numbers}
