"""Scripts as modules, to run them in this process."""

import importlib.util
from pathlib import Path
from types import ModuleType

from helpers.paths import REPOSITORY


def load_script(path: str | Path) -> ModuleType:
    """The module of a script, by its path in the repository."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
