"""The naked loop of a matrix product of few tokens."""

from typing import Any, NamedTuple

import numba

from cpu_ops.kernels.compile import SERIAL_WEIGHTS, inner, kernel
from cpu_ops.kernels.rows import dots, rows_at

PARTS = 48  # pieces of a matrix: equal shares for 2, 3, 4, 6, 8, 12 and 16 threads


class KernelInput(NamedTuple):
    """The vectors of a call, as an INPUT block has them."""

    values: int
    values_stride: int
    scales: int
    scales_stride: int


@inner
def linear_part(rows: Any, first: int, last: int, x: Any, tokens: int, out: int) -> None:
    for i in range(first, last):
        dots(rows, i, x, tokens, out + 4 * i, 4 * rows.n)


@kernel
def linear(rows: int, values: int, values_stride: int, scales: int, scales_stride: int, tokens: int, out: int) -> None:
    """out[T, n] = x · rows, of the ROWS block at address `rows`."""
    matrix = rows_at(rows)
    n = matrix.n
    if n * matrix.k * tokens <= SERIAL_WEIGHTS:
        linear_part(matrix, 0, n, KernelInput(values, values_stride, scales, scales_stride), tokens, out)
        return
    for part in numba.prange(PARTS):
        x = KernelInput(values, values_stride, scales, scales_stride)
        linear_part(rows_at(rows), part * n // PARTS, (part + 1) * n // PARTS, x, tokens, out)
