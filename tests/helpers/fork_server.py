"""A process that has imported everything and forks at each request: scripts then start in milliseconds.

Run by helpers.forks, with the number of an inherited socket. A child becomes the process that a request describes: its
words, environment, folder and streams; it runs the script as `__main__`. At the end it waits for its threads, calls
what is registered for the end and flushes its streams; freeing a thousand modules, near a second, is left out.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import warnings
from pathlib import Path
from typing import NoReturn

# Everything that the scripts import, and what transformers and accelerate import only when it is used.
IMPORTS = (
    "open_musiclm.cli",
    "open_musiclm.checkpoints.bundle",
    "open_musiclm.data.check",
    "open_musiclm.data.fma",
    "open_musiclm.data.preprocess_sounds",
    "open_musiclm.generation.generate_files",
    "open_musiclm.generation.loading",
    "open_musiclm.tokenizers.clap_laion",
    "open_musiclm.training.backbones.train",
    "open_musiclm.training.train_stage",
    "open_musiclm.training.train_tokenizers",
    "accelerate.accelerator",
    "sklearn.cluster",
    "tokenizers",
    "torch.utils.tensorboard",
    "transformers.models.clap.feature_extraction_clap",
    "transformers.models.clap.modeling_clap",
    "transformers.models.hubert.modeling_hubert",
    "transformers.models.roberta.tokenization_roberta",
)


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    sys.path.pop(0)  # the folder of this file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in IMPORTS:
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    _end(_become(_serve(channel)))


def _serve(channel: socket.socket) -> dict:
    """Forks at each request and reports how each child ended. Returns only in a child, with its request."""
    waker, woken = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest
    reports: dict[int, socket.socket] = {}
    selector = selectors.DefaultSelector()
    selector.register(channel, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is woken:
                woken.recv(4096)
                _report_ended(reports)
                continue
            _, descriptors, _, _ = socket.recv_fds(channel, 1, 5)
            if not descriptors:
                sys.exit()
            request, *streams, descriptor = descriptors
            report = socket.socket(fileno=descriptor)
            child = os.fork()
            if not child:
                selector.close()
                for end in (channel, waker, woken, report, *reports.values()):
                    end.close()
                _take_over(streams)
                with open(request) as file:
                    return json.load(file)
            for given in (request, *streams):
                os.close(given)
            report.send(f"{child}\n".encode())
            reports[child] = report


def _take_over(streams: list[int]) -> None:
    """In a child: the streams of its request and the signal handlers of a process that has just started."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)


def _report_ended(reports: dict[int, socket.socket]) -> None:
    while reports:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        report = reports.pop(child)
        report.send(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        report.close()


def _become(request: dict) -> int:
    """Runs what `python WORDS` runs in a process of its own; returns the exit status."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    _open_streams()
    try:
        _run(*request["words"])
    except SystemExit as end:
        if isinstance(end.code, int | None):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _run(first: str, *words: str) -> None:
    if first == "-c":
        code, *words = words
        sys.argv = ["-c", *words]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *words]
        sys.path.insert(0, str(Path(first).resolve().parent))
        runpy.run_path(first, run_name="__main__")


def _end(status: int) -> NoReturn:
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            status = 120  # as the interpreter says it
    os._exit(status)


def _open_streams() -> None:
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = open(  # noqa: SIM115 (for as long as the process lasts)
            number,
            "w" if number else "r",
            buffering=1 if number == 2 else -1,
            encoding=encoding,
            errors="backslashreplace" if number == 2 else errors or "strict",
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    main()
