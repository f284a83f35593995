"""CUDA graphs of decode steps, captured once for each size and kept in a bounded cache."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch

MOST_GRAPHS = 4

State = TypeVar("State")


def captured_graph(work: Callable[[], None]) -> Callable[[], None]:
    """`work`, which always runs the same operations on the same CUDA memory, as one graph.

    Runs it a few times: the caller resets what it changes.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class GraphCache(Generic[State]):
    """The `most` graphs used last, each with the memory that it works on; older ones are freed."""

    def __init__(
        self, most: int = MOST_GRAPHS, capture: Callable[[Callable[[], None]], Callable[[], None]] = captured_graph
    ) -> None:
        self.most, self.capture = most, capture
        self._kept: OrderedDict[Hashable, tuple[State, Callable[[], None]]] = OrderedDict()

    def __len__(self) -> int:
        """How many graphs are kept."""
        return len(self._kept)

    def get(
        self, key: Hashable, make_state: Callable[[], State], work: Callable[[State], None]
    ) -> tuple[State, Callable[[], None]]:
        """The memory of `key` and its captured work; both are made where they are not kept."""
        if key not in self._kept:
            while len(self._kept) >= self.most:
                self._kept.popitem(last=False)  # before the new one takes its memory
            state = make_state()
            self._kept[key] = (state, self.capture(lambda: work(state)))
        self._kept.move_to_end(key)
        return self._kept[key]
