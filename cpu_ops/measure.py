"""What this machine's memory gives these kernels: a clock runs here. Each function takes about a second."""

import statistics
import time
from collections.abc import Callable

import torch

from cpu_ops.describe import input_places, rows_address, run
from cpu_ops.kernels.gather import gather
from cpu_ops.linear import linear
from models.bits import FormatName
from models.formats import FORMATS, Input
from models.rows import Rows

WIDTH = 4096  # weights of a row
BUFFER_BYTES = 2**28  # far more than caches hold
BUDGET_SECONDS = 0.5
SHARE = 0.1  # of the rows, when gathering: what a sparse model's neurons ask for


def streaming_bytes_per_second(name: FormatName = "int4", buffer_bytes: int = BUFFER_BYTES) -> float:
    """Rows read in order, as gates are."""
    rows, x = _rows(name, buffer_bytes)
    return rows.nbytes / _median_seconds(lambda: linear(rows, x))


def gathering_bytes_per_second(name: FormatName = "int4", buffer_bytes: int = BUFFER_BYTES) -> float:
    """A tenth of the rows, scattered, as up and down of the neurons that fire are: bytes of those rows alone."""
    rows, x = _rows(name, buffer_bytes)
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: max(1, int(SHARE * len(rows)))]
    which, out = chosen.sort().values, torch.empty(len(chosen))
    call = (rows_address(rows), *input_places(x), which.data_ptr(), len(which), out.data_ptr())
    return len(which) * rows.format.row_bytes(rows.k) / _median_seconds(lambda: run(gather, *call))


def region_seconds() -> float:
    """One call that computes next to nothing: entering a parallel region, and Python on the way to it."""
    rows, x = _rows("float32", 4 * WIDTH)
    return _median_seconds(lambda: linear(rows, x))


def _rows(name: FormatName, buffer_bytes: int) -> tuple[Rows, Input]:
    n = max(1, buffer_bytes // FORMATS[name].row_bytes(WIDTH))
    record = Rows.encode(name, torch.ones(1, WIDTH)).records()
    return Rows.view(name, WIDTH, record.repeat(n, 1)), FORMATS[name].input(torch.ones(1, WIDTH))


def _median_seconds(call: Callable[[], object]) -> float:
    """The first call warms up; the rest share the budget, three at least."""
    call()
    seconds: list[float] = []
    started = time.perf_counter()
    while len(seconds) < 3 or (time.perf_counter() - started < BUDGET_SECONDS and len(seconds) < 1000):
        before = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - before)
    return statistics.median(seconds)
