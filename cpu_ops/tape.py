"""A tape of kernel calls: what a thread has run, with the memory it ran on, to be run again without Python in between.

Python costs a decode step little while its code is in the caches, but a layer's weights drive it out: each call then takes ten
times as long. So a step that does the same at the same addresses every time is recorded once and played back (as a CUDA graph is).
"""

import math
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Kernel = Callable[[int], None]
READS = "resolve_conj"  # what `tolist` and `numpy()` begin with: a number that Python has read is not read again
_NOW = threading.local()
Owner = TypeVar("Owner")


class Reel:
    """Memory that tapes share which are never played at the same time: the n-th piece that a step asks for is the n-th one here.

    So tapes of fewer tokens take next to nothing beside that of the most. A piece that is too small is replaced; older tapes keep theirs.
    """

    def __init__(self) -> None:
        self.pieces: list[Tensor] = []

    @property
    def nbytes(self) -> int:
        return sum(piece.nbytes for piece in self.pieces)

    def piece(self, number: int, nbytes: int) -> Tensor:
        """uint8 [nbytes]. Pieces are asked for in order."""
        assert number <= len(self.pieces)
        if number == len(self.pieces) or self.pieces[number].nbytes < nbytes:
            with torch.inference_mode(mode=False):  # it may be written both inside and outside
                self.pieces[number : number + 1] = [torch.empty(nbytes, dtype=torch.uint8)]
        return self.pieces[number][:nbytes]


class Tape:
    """`calls`: kernels and their blocks of numbers, in order. `kept`: who owns the memory that the numbers point to, except for vectors
    of the model's own, such as norms.

    `stranger`: an operation of torch's that was needed too, so that playing the calls is not enough.
    """

    def __init__(self, reel: Reel) -> None:
        self.calls: list[tuple[Kernel, array[int]]] = []
        self.kept: list[object] = []
        self.stranger: str | None = None
        self.reel, self.asked = reel, 0

    def fresh(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The next piece of the reel."""
        piece = self.reel.piece(self.asked, math.prod(shape) * dtype.itemsize)
        self.asked += 1
        self.kept.append(piece)
        return piece.view(dtype).view(shape)


def current() -> Tape | None:
    """The tape that this thread records on."""
    tape: Tape | None = getattr(_NOW, "tape", None)
    return tape


@contextmanager
def recording(reel: Reel | None = None) -> Iterator[Tape]:
    """Everything that the thread runs meanwhile is run and recorded, on memory of `reel`, or of its own."""
    assert current() is None
    _NOW.tape = tape = Tape(reel or Reel())
    try:
        with _Watch(tape):
            yield tape
    finally:
        _NOW.tape = None


class _Noticing:
    """Notes the first operation that is neither a view nor new memory.

    A class of its own, for a mode's own method torch wraps in what imports its whole compiler: a second, and 74 MB for good.
    """

    tape: Tape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name != "empty" and (name == READS or not (func.is_view and _shared(result, args))):
            self.tape.stranger = self.tape.stranger or name
        return result


class _Watch(_Noticing, TorchDispatchMode):
    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it half typed
        self.tape = tape


def _shared(results: Any, arguments: Iterable[Any]) -> bool:
    """Whether all results lie in the memory of the arguments."""
    places = [one.untyped_storage().data_ptr() for one in arguments if isinstance(one, Tensor)]
    return all(one.untyped_storage().data_ptr() in places for one in (results if isinstance(results, list | tuple) else [results]))


def run(kernel: Kernel, *numbers: int) -> None:
    """Calls a kernel with a block of numbers, which lives until it returns."""
    block = array("q", numbers)
    tape = current()
    if tape is not None:
        tape.calls.append((kernel, block))
    kernel(block.buffer_info()[0])


def keep(owner: Owner) -> Owner:
    """The same; a tape that is recording keeps it as long as itself."""
    tape = current()
    if tape is not None:
        tape.kept.append(owner)
    return owner


def fresh(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory for a kernel to fill."""
    tape = current()
    return torch.empty(shape, dtype=dtype) if tape is None else tape.fresh(shape, dtype)
