"""The naked loop that turns stored rows into float32."""

from typing import Any

import numba
import numpy as np

from cpu_ops.kernels.compile import SERIAL_WEIGHTS, inner, kernel
from cpu_ops.kernels.rows import address_of, axpys, rows_at, scales_of, settle, weights_of

PARTS = 48


@inner
def _decode_part(rows: Any, first: int, last: int, out: int) -> None:
    """Each row as raw sums of itself."""
    raw = np.empty(rows.raw_floats, np.float32)
    chosen, one = np.empty(2, np.int64), np.ones(1, np.float32)
    for i in range(first, last):
        raw[:] = 0
        chosen[0], chosen[1] = weights_of(rows, i), scales_of(rows, i)
        axpys(rows, address_of(chosen), address_of(one), 1, address_of(raw))
        settle(rows, address_of(raw), out + i * rows.k * 4)


@kernel
def decode(rows: int, out: int) -> None:
    """out float32 [n, k] = the rows of the ROWS block at address `rows`."""
    matrix = rows_at(rows)
    n = matrix.n
    if n * matrix.k <= SERIAL_WEIGHTS:
        _decode_part(matrix, 0, n, out)
        return
    for part in numba.prange(PARTS):
        _decode_part(rows_at(rows), part * n // PARTS, (part + 1) * n // PARTS, out)
