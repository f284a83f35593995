"""Sets a user name and a home directory for processes without an account: containers with any user id, services, jobs.

torch and transformers need both when they are imported, and fail without them.
"""

import os
from pathlib import Path

_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # where Python looks before it asks for the account
# Where libraries keep what they compile or download.
_CACHES = {
    "XDG_CACHE_HOME": ".cache",
    "TRITON_CACHE_DIR": "triton",
    "NUMBA_CACHE_DIR": "numba",
    "MPLCONFIGDIR": "plots",
}


def complete_environment() -> None:
    """Sets what is missing, for this process and its children; what is set stays as it is.

    Has to be called before torch or transformers is imported.
    """
    try:
        import pwd
    except ImportError:  # no POSIX system
        return
    try:
        home: str | None = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = None
        if not any(os.environ.get(name) for name in _NAMES):
            os.environ["LOGNAME"] = f"user{os.getuid()}"
    home = os.environ.get("HOME") or home
    if home is not None and os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return
    place = _private_folder()
    if home is None:
        os.environ["HOME"] = str(place)
        return
    downloaded = Path(home, ".cache", "huggingface")
    if os.access(downloaded, os.R_OK | os.X_OK) and "XDG_CACHE_HOME" not in os.environ:
        os.environ.setdefault("HF_HOME", str(downloaded))  # what is there can be read all the same
    for name, folder in _CACHES.items():
        os.environ.setdefault(name, str(place / folder))


def _private_folder() -> Path:
    """A folder of this user's alone in the one for temporary files; the same one for later processes if possible."""
    import tempfile

    folder = Path(tempfile.gettempdir(), f"open_musiclm-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if folder.is_dir() and status.st_uid == os.getuid() and status.st_mode & 0o777 == 0o700:
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="open_musiclm-"))
