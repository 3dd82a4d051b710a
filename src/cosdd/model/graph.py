"""CUDA graphs: work that is recorded once, and started as one thing from then on.

The host takes some microseconds to start a kernel, and a small network is thousands of small kernels: a GPU would
spend most of its time waiting for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Graph(Generic[Result]):
    """Work on tensors of the GPU that stay where they are. Recording it does nothing yet.

    work: asks the device for nothing, and has been done before, so that what is only made once exists.
    Raises RuntimeError where it cannot be recorded.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        before = torch.cuda.current_stream()
        try:
            # Of this thread alone: others may send crops meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._result = work()
        except RuntimeError:
            # Stream and generator go on as if it were still recorded; the state alone, they have back.
            torch.cuda.set_stream(before)
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            raise

    def replay(self) -> Result:
        """Do the work. Returns the same tensors every time: what is to be kept of them must be copied."""
        self._graph.replay()
        return self._result


class Replay:
    """Calls of one function, time and again with tensors of the same shapes: from the second on they are replayed.

    record: what makes a recording of work; see `Graph`. What cannot be recorded is done as it is.
    """

    def __init__(self, record: Callable[[Callable[[], Any]], Any] | None = Graph) -> None:
        self._record = record
        self._key: object = None
        self._recording: Any = None
        self._inputs: list[Tensor] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Replay:
        return Replay(self._record)  # a recording is of the weights of one network

    def __call__(self, function: Callable[..., Tensor], weights: Iterable[Tensor], *given: Tensor) -> Tensor:
        """function(*given). weights: whatever else it reads, which stays where it is."""
        key = [(t.shape, t.dtype, t.device) for t in given], [t.data_ptr() for t in weights]
        if key != self._key or self._record is None:
            self._key, self._recording = key, None
            return function(*given)
        if self._recording is None:
            self._inputs = [t.clone() for t in given]
            try:
                self._recording = self._record(lambda: function(*self._inputs))
            except RuntimeError:
                self._record = None
                return function(*given)
        for own, theirs in zip(self._inputs, given, strict=True):
            own.copy_(theirs)
        return self._recording.replay().clone()
