"""The naked loop of a matrix product of few tokens."""

import numpy as np

from cpu_ops.kernels.compile import SERIAL_WEIGHTS, inner, kernel
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import IN_ORDER, INPUT, block_at, prepare_all, products, rows_at

PARTS = 48  # pieces of a matrix: equal shares for 2, 3, 4, 6, 8, 12 and 16 threads

# out[T, n] = x · rows: the rows' block, x, room for it prepared (see `rows.prepare`), and where float32 [tokens, n] go.
CALL = np.dtype([("rows", np.int64), ("x", INPUT)] + [(name, np.int64) for name in ("prepared", "prepared_stride", "tokens", "out")])
call_at = block_at(CALL)


@inner
def _linear_part(address: int, part: int) -> None:
    call = call_at(address)
    rows = rows_at(call.rows)
    for i in range(part * rows.n // PARTS, (part + 1) * rows.n // PARTS):
        products(rows, i, IN_ORDER, call.prepared, call.prepared_stride, call.tokens, call.out + 4 * i, 4 * rows.n)


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
