"""The naked loop over chosen rows, out of order: what memory gives to gathered reads."""

from typing import Any

import numba
import numpy as np

from cpu_ops.kernels.compile import inner, kernel
from cpu_ops.kernels.linear import KernelInput
from cpu_ops.kernels.rows import ask, dot, rows_at

Floats = np.ndarray[Any, np.dtype[np.float32]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

PARTS = 48
AHEAD = 2  # rows asked for before they are needed


@inner
def _gather_part(rows: Any, which: Indices, first: int, last: int, x: Any, out: Floats) -> None:
    for place in range(first, min(first + AHEAD, last)):
        ask(rows, which[place])
    for place in range(first, last):
        if place + AHEAD < last:
            ask(rows, which[place + AHEAD])
        out[place] = dot(rows, which[place], x, 0)


@kernel
def gather(rows: int, which: Indices, values: int, scales: int, out: Floats) -> None:
    """out[m] = rows[which] · the one vector at `values` and `scales`; `rows` is the address of a ROWS block."""
    m = len(which)
    for part in numba.prange(PARTS):
        x = KernelInput(values, 0, scales, 0)
        _gather_part(rows_at(rows), which, part * m // PARTS, (part + 1) * m // PARTS, x, out)
