"""Checks every tensor shape in the package's signatures while the tests run; one small model for all tests."""

import os

from jaxtyping import install_import_hook

os.environ["HF_HUB_OFFLINE"] = "1"
install_import_hook("open_musiclm", "typechecker.checked")

import pytest  # noqa: E402 (the hook has to come first)
from small_stack import Stack, build_stack  # noqa: E402


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A whole small model on disk."""
    return build_stack(tmp_path_factory.mktemp("stack"))
