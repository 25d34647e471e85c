"""The naked loop of a matrix product of few tokens."""

from typing import Any

import numba
import numpy as np

from cpu_ops.kernels.compile import SERIAL_WEIGHTS, inner, kernel
from cpu_ops.kernels.rows import KernelInput, KernelRows, dot

Floats = np.ndarray[Any, np.dtype[np.float32]]

PARTS = 64  # pieces of a matrix, shared among however many threads there are


@inner
def _linear_part(rows: KernelRows, first: int, last: int, x: KernelInput, k: int, out: Floats) -> None:
    for i in range(first, last):
        for token in range(len(out)):
            out[token, i] = dot(rows, i, x, token, k)


@kernel
def linear(rows: KernelRows, n: int, x: KernelInput, k: int, out: Floats) -> None:
    """out[T, n] = x · rows."""
    if n * k * len(out) <= SERIAL_WEIGHTS:
        _linear_part(rows, 0, n, x, k, out)
        return
    for part in numba.prange(PARTS):
        _linear_part(rows, part * n // PARTS, (part + 1) * n // PARTS, x, k, out)
