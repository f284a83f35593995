"""Scripts as modules, to run them in this process."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from helpers.paths import REPOSITORY


def load_script(path: str | Path) -> ModuleType:
    """The module of a script, by its path in the repository."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str((REPOSITORY / path).parent))  # benchmarks import those beside them
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
