"""What the kernels make of this machine's memory, and what they take besides: a clock runs here. Knows no files and no plans.

A buffer is read again and again as a matrix (`linear`) and as a bank (`ffn`) whose biases say which neurons fire, played back from
a tape as a decode step is. What a call takes is fixed seconds and seconds per byte; the first are found from a small and a larger
buffer that both fit the cache. Calls that are compared take turns, since bandwidth drifts. `cpu_ops/trial.py` measures what a layer
takes around its kernels.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cpu_ops.describe import Block
from cpu_ops.ffn import ffn
from cpu_ops.kernels.replay import replay
from cpu_ops.linear import linear
from cpu_ops.replay import calls_of
from cpu_ops.tape import Tape, recording
from models.arena import allocate
from models.bank import NeuronBank
from models.bits import BITS, FormatName
from models.formats import FORMATS, Input
from models.rows import Rows
from models.spec import FfnRule

BUDGET_SECONDS = 0.3  # for calls that take turns
LEAST_ROUNDS = 3
TURN_SECONDS = 10e-3  # a small call right after another is a third slower: Python's own code has left the first cache
MOST_IN_A_TURN = 100
RULE = FfnRule("gated", "relu")
Calls = Sequence[Callable[[], object]]
FEWEST_NEURONS = 256  # of a small bank: enough that every thread has work
SMALL_WEIGHTS = 2**18  # of its gate: a region's worth, and little to read


@dataclass(frozen=True, slots=True)
class Pace:
    """Bytes per second of matrices, of gates when nothing fires, and of what firing adds, at each density."""

    streaming: float
    scanning: float
    gathering: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WidthPace:
    """`region_seconds`, `bank_seconds`: of a matrix and of a bank, besides their bytes."""

    width: int
    region_seconds: float
    bank_seconds: float
    cached: Pace
    memory: Pace


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory as one matrix of rows that are all ones, and as a bank over the same bytes."""

    matrix: Rows
    gate: Rows
    up: Rows
    down: Rows
    x: Input

    @classmethod
    def over(cls, memory: Tensor, name: FormatName, width: int) -> "Buffer":
        """memory: uint8, which is written over."""
        row = BITS[name].row_bytes(width)
        n = max(len(memory) // (3 * row), 1)
        records = memory[: 3 * n * row].view(3 * n, row)
        records[:] = Rows.encode(name, torch.ones(1, width)).records()
        return cls.viewing(records, name, width)

    @classmethod
    def viewing(cls, records: Tensor, name: FormatName, width: int) -> "Buffer":
        """records: uint8 [3·n, row], written already."""
        n, row = len(records) // 3, records.shape[1]
        pairs = records[n : 3 * n].view(n, 2 * row)
        parts = (records[: 3 * n], records[:n], pairs[:, :row], pairs[:, row:])
        matrix, gate, up, down = (Rows.view(name, width, part) for part in parts)
        return cls(matrix, gate, up, down, FORMATS[name].input(torch.ones(1, width)))

    def multiply(self) -> Tensor:
        return linear(self.matrix, self.x)

    def firing(self, density: float) -> "Firing":
        return Firing.planted(self, density)


@dataclass(frozen=True, slots=True)
class Firing:
    """A buffer's bank with biases that let `fired` of its neurons fire."""

    bank: NeuronBank
    x: Input
    fired: int

    @classmethod
    def planted(cls, buffer: Buffer, density: float) -> "Firing":
        """A gate row gives its width: a bias of twice that, taken away, silences a neuron."""
        n, width = len(buffer.gate), buffer.gate.k
        fires = torch.rand(n, generator=torch.Generator().manual_seed(0)) < density
        bias = torch.where(fires, 0.0, -2.0 * width)
        return cls(NeuronBank(buffer.gate, buffer.up, buffer.down, gate_bias=bias), buffer.x, int(fires.sum()))

    def __call__(self) -> Tensor:
        return ffn(self.bank, self.x, RULE)

    @property
    def gathered_bytes(self) -> int:
        return self.fired * (self.bank.up.format.row_bytes(self.bank.up.k) + self.bank.down.format.row_bytes(self.bank.down.k))


@dataclass(frozen=True, slots=True)
class Played:
    """Kernel calls on a tape; called, they run without Python in between."""

    tape: Tape
    calls: Block

    @classmethod
    def of(cls, call: Callable[[], object]) -> "Played":
        with recording() as tape:
            call()
        assert tape.stranger is None, tape.stranger  # it would be left out, and what is measured seem too fast
        return cls(tape, calls_of(tape))

    def __call__(self) -> None:
        replay(self.calls.ctypes.data, len(self.calls))


def allocate_buffer(nbytes: int) -> Tensor:
    """uint8 [nbytes], in memory such as weights lie in; one does for all measurements."""
    return allocate(nbytes)


def width_pace(name: FormatName, width: int, memory: Tensor, cached_bytes: int, densities: Sequence[float]) -> WidthPace:
    """`memory` is the level that no cache holds; its first `cached_bytes` are the one that caches do."""
    large = Buffer.over(memory, name, width)
    rows = large.gate.planes[0].shape[0]
    row = BITS[name].row_bytes(width)
    few = min(max(SMALL_WEIGHTS // width, FEWEST_NEURONS), rows)
    records = memory[: 3 * rows * row].view(3 * rows, row)
    middle, small = (Buffer.viewing(records[: 3 * n], name, width) for n in (min(max(cached_bytes // (3 * row), 2 * few), rows), few))
    region, bank = fixed_seconds(small, middle)
    return WidthPace(width, region, bank, pace(middle, region, bank, densities), pace(large, region, bank, densities))


def fixed_seconds(small: Buffer, middle: Buffer) -> tuple[float, float]:
    """What a matrix and a bank of no bytes would take, by a straight line through two sizes."""
    calls: Calls = (small.multiply, middle.multiply, small.firing(0.0), middle.firing(0.0))
    sizes = len(small.gate), len(middle.gate)
    found = [
        (intercept(sizes, small_matrix, matrix), intercept(sizes, small_bank, bank))
        for small_matrix, matrix, small_bank, bank in rounds([Played.of(call) for call in calls])
    ]
    region, bank = medians(found)
    return region, bank


def intercept(sizes: tuple[int, int], small: float, large: float) -> float:
    """Seconds at size 0 of the line through both; all of the smaller when they are one."""
    slope = (large - small) / (sizes[1] - sizes[0]) if sizes[1] > sizes[0] else 0.0
    return max(min(small - slope * sizes[0], small), 0.0)


def pace(buffer: Buffer, region_seconds: float, bank_seconds: float, densities: Sequence[float]) -> Pace:
    """The rates of one level, without the fixed seconds. What firing adds is never read faster than a matrix is."""
    firings = [buffer.firing(density) for density in densities]
    calls: Calls = (buffer.multiply, buffer.firing(0.0), *firings)
    found = rounds([Played.of(call) for call in calls])
    matrix, silent, *added = medians([(matrix, silent, *(each - silent for each in firing)) for matrix, silent, *firing in found])
    streaming = rate(buffer.matrix.nbytes, matrix, region_seconds)
    gathering = (rate(each.gathered_bytes, silent + max(seconds, 0.0), silent) for each, seconds in zip(firings, added, strict=True))
    return Pace(streaming, rate(buffer.gate.nbytes, silent, bank_seconds), tuple(min(one, streaming) for one in gathering))


def rate(nbytes: int, seconds: float, without: float) -> float:
    """Bytes per second of what remains; of a remainder lost in noise, a tenth of the whole is taken."""
    return max(nbytes, 1) / max(seconds - without, seconds / 10)


def rounds(calls: Calls) -> list[tuple[float, ...]]:
    """Seconds of each call, round by round: one warms up, then the calls take turns until the budget is spent.

    What is subtracted from each other is subtracted within a round: bandwidth changes between rounds by more than many a difference.
    """
    for call in calls:
        call()
    found: list[tuple[float, ...]] = []
    end = time.perf_counter() + BUDGET_SECONDS
    while len(found) < LEAST_ROUNDS or time.perf_counter() < end:
        found.append(tuple(turn(call) for call in calls))
    return found


def medians(found: Sequence[Sequence[float]]) -> list[float]:
    """Of each column of [rounds, calls]."""
    return [statistics.median(column) for column in zip(*found, strict=True)]


def turn(call: Callable[[], object]) -> float:
    """Mean seconds of calls that fill TURN_SECONDS; the first, which finds what others left in the caches, counts only when it is all.

    The mean, for a step of many calls takes what they take on the average, interruptions and all.
    """
    first = seconds_of(call)
    if first >= TURN_SECONDS:
        return first
    count = min(int(TURN_SECONDS / max(first, 1e-9)), MOST_IN_A_TURN) + 1
    return sum(seconds_of(call) for _ in range(count)) / count


def seconds_of(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
