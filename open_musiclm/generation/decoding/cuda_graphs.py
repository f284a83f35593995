"""CUDA graphs of decode steps, captured once for each size and kept in a bounded cache."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch

MOST_GRAPHS = 4

State = TypeVar("State")


def captured_graph(work: Callable[[], None]) -> Callable[[], None]:
    """`work`, which must run the same operations on the same CUDA memory every time, as one graph.

    Its device must be the current one of this thread. Runs it a few times first: the caller must reset what it changes.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):  # its own default is one stream for all devices
        work()
    return graph.replay


class GraphCache(Generic[State]):
    """The `most` recently used graphs, each with the memory that it works on; older ones are freed."""

    def __init__(
        self, most: int = MOST_GRAPHS, capture: Callable[[Callable[[], None]], Callable[[], None]] = captured_graph
    ) -> None:
        self.most, self.capture = most, capture
        self._kept: OrderedDict[Hashable, tuple[State, Callable[[], None]]] = OrderedDict()

    def __len__(self) -> int:
        """The number of graphs in the cache."""
        return len(self._kept)

    def get(
        self, key: Hashable, make_state: Callable[[], State], work: Callable[[State], None]
    ) -> tuple[State, Callable[[], None]]:
        """The memory and the captured work of `key`; both are created if they are not in the cache."""
        if key not in self._kept:
            while len(self._kept) >= self.most:
                self._kept.popitem(last=False)  # before the new graph allocates its memory
            state = make_state()
            self._kept[key] = (state, self.capture(lambda: work(state)))
        self._kept.move_to_end(key)
        return self._kept[key]
