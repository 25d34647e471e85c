"""The naked loop over chosen rows, out of order: what memory gives to gathered reads."""

from typing import Any

import numba
import numpy as np

from cpu_ops.kernels.compile import inner, kernel
from cpu_ops.kernels.rows import KernelInput, KernelRows, ask, dot

Floats = np.ndarray[Any, np.dtype[np.float32]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

PARTS = 64
AHEAD = 2  # rows asked for before they are needed


@inner
def _gather_part(rows: KernelRows, which: Indices, first: int, last: int, x: KernelInput, k: int, out: Floats) -> None:
    for place in range(first, min(first + AHEAD, last)):
        ask(rows, which[place], k)
    for place in range(first, last):
        if place + AHEAD < last:
            ask(rows, which[place + AHEAD], k)
        out[place] = dot(rows, which[place], x, 0, k)


@kernel
def gather(rows: KernelRows, which: Indices, x: KernelInput, k: int, out: Floats) -> None:
    """out[m] = rows[which] · the one vector of x."""
    m = len(which)
    for part in numba.prange(PARTS):
        _gather_part(rows, which, part * m // PARTS, (part + 1) * m // PARTS, x, k, out)
