"""The naked loop that turns stored rows into float32."""

from typing import Any

import numba
import numpy as np

from cpu_ops.kernels.compile import SERIAL_WEIGHTS, inner, kernel
from cpu_ops.kernels.rows import KernelRows, address_of, axpy

Floats = np.ndarray[Any, np.dtype[np.float32]]

PARTS = 64


@inner
def _decode_part(rows: KernelRows, first: int, last: int, out: Floats) -> None:
    k = out.shape[1]
    for i in range(first, last):
        for column in range(k):
            out[i, column] = 0
        axpy(rows, i, np.float32(1.0), address_of(out) + i * k * 4, k)


@kernel
def decode(rows: KernelRows, out: Floats) -> None:
    """out[n, K] = rows."""
    n = len(out)
    if n * out.shape[1] <= SERIAL_WEIGHTS:
        _decode_part(rows, 0, n, out)
        return
    for part in numba.prange(PARTS):
        _decode_part(rows, part * n // PARTS, (part + 1) * n // PARTS, out)
