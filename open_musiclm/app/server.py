"""Serves the page until a signal ends it."""

import importlib.util
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from open_musiclm.app.limits import Limits
from open_musiclm.errors import UserError
from open_musiclm.files import prepare_folder
from open_musiclm.interruption import Interruption
from open_musiclm.terminal import print_stdout

if TYPE_CHECKING:
    from open_musiclm.generation.musiclm import MusicLM

_LOOPBACK = ("127.0.0.1", "localhost")
_SECONDS_BETWEEN_LOOKS = 0.2


def check_server(host: str, port: int) -> None:
    """Raises UserError if gradio is not installed, or nothing can listen there."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs gradio, the extra app: pip install --constraint constraints.txt '.[app]'")
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OverflowError as error:
        raise UserError(f"--port {port}: expected a number from 1 to 65535") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--host {host} --port {port}: cannot listen there: {reason}; choose another") from error


@contextmanager
def served(
    model: "MusicLM", paths: Mapping[str, str], limits: Limits, host: str, port: int, results_folder: Path | None = None
) -> Iterator[str]:
    """Serves the page while entered; gives its address.

    Results are written to `results_folder`, or else to a temporary folder, as uploads always are. Raises UserError.
    """
    with tempfile.TemporaryDirectory(prefix="open_musiclm_app_") as temporary:
        uploads, results = Path(temporary, "uploads"), results_folder or Path(temporary, "results")
        prepare_folder(results)
        uploads.mkdir()
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(uploads))
        from open_musiclm.app.history import History
        from open_musiclm.app.jobs import JobRunner
        from open_musiclm.app.launching import launch

        runner = JobRunner(model, paths, limits, History(results, limits.results))
        page, address = launch(runner, uploads, host, port, _LOOPBACK if host in _LOOPBACK else ("*",))
        try:
            yield address
        finally:
            page.close(verbose=False)
            runner.close()


def serve(
    model: "MusicLM", paths: Mapping[str, str], limits: Limits, host: str, port: int, results_folder: Path | None = None
) -> None:
    """Serves the page until SIGINT, SIGTERM or SIGHUP, and cleans up. Raises UserError, Interrupted."""
    with Interruption() as interruption:
        with served(model, paths, limits, host, port, results_folder) as address:
            print_stdout(f"open {address} in a browser; Ctrl-C ends it")
            while not interruption.requested:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        interruption.end()
