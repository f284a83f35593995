"""Checks every tensor shape in the package's signatures while the tests run."""

from jaxtyping import install_import_hook

install_import_hook("open_musiclm", "typechecker.checked")
