"""GpuClock: how long the GPU works, and how long the thread that feeds it waits for it, summed over steps. Knows no layers.

A step begins and ends with a mark in the GPU's queue. Between them, a pair of marks stands around every place where the queue may
have run dry: where the host has queued all it can, and where it comes back with more. What lies between is idle, the rest is work.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, Self

import torch


class Mark(Protocol):
    """A place in the queue that notes when the GPU came by."""

    def record(self) -> None: ...

    def elapsed_time(self, other: Self) -> float:
        """Milliseconds from here to `other`."""


def timed_event() -> Mark:
    event: Mark = torch.cuda.Event(enable_timing=True)
    return event


class GpuClock:
    """`mark` None: there is no GPU, and both times stay 0."""

    def __init__(self, mark: Callable[[], Mark] | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.waiting_seconds = self.working_seconds = 0.0
        self._make, self._clock = mark, clock
        self._marks: list[Mark] = []

    def begin(self) -> None:
        """A step begins; marks of one that failed are forgotten."""
        self._marks.clear()
        self.mark()

    def mark(self) -> None:
        if self._make is not None:
            self._marks.append(self._make())
            self._marks[-1].record()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        began = self._clock()
        try:
            yield
        finally:
            self.waiting_seconds += self._clock() - began

    def settle(self) -> None:
        """The step is over, and the GPU has done all that was queued."""
        if not self._marks:
            return
        first, *idle, last = self._marks
        assert len(idle) % 2 == 0, "idle time begins and ends"
        dry_ms = sum(idle[place].elapsed_time(idle[place + 1]) for place in range(0, len(idle), 2))
        self.working_seconds += (first.elapsed_time(last) - dry_ms) / 1e3
        self._marks.clear()
