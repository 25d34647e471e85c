"""A tape of kernel calls: what a thread has run, with the memory it ran on, to be run again without Python in between.

Python costs a decode step little while its code is in the caches, but a layer's weights drive it out: each call then takes ten
times as long. So a step that does the same at the same addresses every time is recorded once and played back (as a CUDA graph is).
"""

import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Kernel = Callable[[int], None]
_NOW = threading.local()


class Tape:
    """`calls`: kernels and their blocks of numbers, in order. `kept`: the memory that the numbers point to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Kernel, array[int]]] = []
        self.kept: list[Tensor] = []


def current() -> Tape | None:
    """The tape that this thread records on."""
    tape: Tape | None = getattr(_NOW, "tape", None)
    return tape


@contextmanager
def recording() -> Iterator[Tape]:
    """Everything that the thread runs meanwhile is run and recorded."""
    assert current() is None
    _NOW.tape = tape = Tape()
    try:
        yield tape
    finally:
        _NOW.tape = None


def run(kernel: Kernel, *numbers: int) -> None:
    """Calls a kernel with a block of numbers, which lives until it returns."""
    block = array("q", numbers)
    tape = current()
    if tape is not None:
        tape.calls.append((kernel, block))
    kernel(block.buffer_info()[0])


def keep(memory: Tensor) -> Tensor:
    """The same; a tape that is recording keeps it as long as itself."""
    tape = current()
    if tape is not None:
        tape.kept.append(memory)
    return memory


def fresh(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory for a kernel to fill."""
    return keep(torch.empty(shape, dtype=dtype))
