"""The naked loop of a matrix product of few tokens."""

import numpy as np

from cpu_ops.kernels.compile import SERIAL_WEIGHTS, inner, kernel
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import IN_ORDER, INPUT, LISTED, address_of, alive, block_at, list_row, prepare_all, products, rows_at

LISTED_AT_ONCE = 16
PARTS = 48  # pieces of a matrix: equal shares for 2, 3, 4, 6, 8, 12 and 16 threads

# out[T, n] = x · rows: the rows' block, x, room for it prepared (see `rows.prepare`), and where float32 [tokens, n] go.
CALL = np.dtype([("rows", np.int64), ("x", INPUT)] + [(name, np.int64) for name in ("prepared", "prepared_stride", "tokens", "out")])
call_at = block_at(CALL)


@inner
def _linear_part(address: int, part: int) -> None:
    call = call_at(address)
    rows = rows_at(call.rows)
    last, listed = (part + 1) * rows.n // PARTS, np.empty((LISTED_AT_ONCE, LISTED), np.int64)
    for first in range(part * rows.n // PARTS, last, LISTED_AT_ONCE):
        count = min(LISTED_AT_ONCE, last - first)
        for place in range(count):
            list_row(rows, address_of(listed), place, first + place, IN_ORDER * rows.weights_stride)
        strides = 4, 4 * rows.n
        products(rows, address_of(listed), count, call.prepared, call.prepared_stride, call.tokens, call.out + 4 * first, strides)
    alive(listed)


@kernel
def linear(address: int) -> None:
    """Fills `out` of the CALL at an address."""
    call = call_at(address)
    rows = rows_at(call.rows)
    prepare_all(rows, call.x, call.tokens, call.prepared, call.prepared_stride)
    if rows.n * rows.k * call.tokens <= SERIAL_WEIGHTS:
        for part in range(PARTS):
            _linear_part(address, part)
    else:
        in_parallel(_linear_part, address, PARTS)
