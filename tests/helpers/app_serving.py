"""A served page whose model can be held in the middle of a generation."""

import inspect
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.small_stack import Stack
from open_musiclm.app.limits import Limits
from open_musiclm.app.server import served
from open_musiclm.generation.musiclm import MusicLM

LIMITS = Limits(
    duration=4, samples=2, waiting=2, results=2, upload_bytes=100_000, upload_seconds=2, request_bytes=50_000
)


class Gate:
    """Holds a model's stream after each chunk until it is opened; counts the chunks that were asked for,
    and keeps the arguments as text."""

    def __init__(self, model: MusicLM) -> None:
        self.opened, self.chunks, self._stream = threading.Event(), 0, model.stream
        self.asked: list[str] = []
        self.opened.set()
        model.stream = self.stream  # type: ignore[method-assign]

    def stream(self, *arguments: Any, **named: Any) -> Iterator[Any]:
        self.asked.append(repr((arguments, named)))
        for chunk in self._stream(*arguments, **named):
            self.chunks += 1
            yield chunk
            assert self.opened.wait(60)


@dataclass
class ServedApp:
    """The address of a page, what is behind it and where its results are."""

    address: str
    model: MusicLM
    gate: Gate
    folder: Path


@contextmanager
def served_app(stack: Stack, folder: Path) -> Iterator[ServedApp]:
    from open_musiclm.app.handlers import Handlers

    for name in ("generate", "generate_on_page"):  # gradio tells generators by what the type checks wrap
        setattr(Handlers, name, inspect.unwrap(getattr(Handlers, name)))
    model = stack.musiclm()
    gate = Gate(model)
    with served(model, {"semantic_path": "here"}, LIMITS, "127.0.0.1", free_port(), folder) as address:
        try:
            yield ServedApp(address, model, gate, folder)
        finally:
            gate.opened.set()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
