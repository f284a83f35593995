"""The versions that a result depends on."""

import platform
from importlib.metadata import PackageNotFoundError, version

import open_musiclm

_LIBRARIES = ("torch", "transformers", "encodec", "vector-quantize-pytorch")


def versions(*more: str) -> dict[str, str]:
    """The versions of Python, of this package and of the libraries that affect its results, and of `more` libraries."""
    own = {"python": platform.python_version(), "open_musiclm": open_musiclm.__version__}
    return {**own, **{name: _version(name) for name in (*_LIBRARIES, *more)}}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"
