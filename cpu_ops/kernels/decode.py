"""The naked loop that turns stored rows into float32."""

import numpy as np

from cpu_ops.kernels.compile import SERIAL_WEIGHTS, inner, kernel
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import address_of, axpys, block_at, rows_at, scales_of, settle, weights_of

PARTS = 48

# out float32 [n, k] = the rows of a block.
CALL = np.dtype([("rows", np.int64), ("out", np.int64)])
call_at = block_at(CALL)


@inner
def _decode_part(address: int, part: int) -> None:
    """Each row as raw sums of itself."""
    call = call_at(address)
    rows = rows_at(call.rows)
    raw = np.empty(rows.raw_floats, np.float32)
    chosen, one = np.empty(2, np.int64), np.ones(1, np.float32)
    for i in range(part * rows.n // PARTS, (part + 1) * rows.n // PARTS):
        raw[:] = 0
        chosen[0], chosen[1] = weights_of(rows, i), scales_of(rows, i)
        axpys(rows, address_of(chosen), address_of(one), 1, address_of(raw))
        settle(rows, address_of(raw), call.out + i * rows.k * 4)


@kernel
def decode(address: int) -> None:
    """Fills `out` of the CALL at an address."""
    call = call_at(address)
    rows = rows_at(call.rows)
    if rows.n * rows.k <= SERIAL_WEIGHTS:
        for part in range(PARTS):
            _decode_part(address, part)
    else:
        in_parallel(_decode_part, address, PARTS)
