"""The naked loop that turns stored rows into float32."""

import numpy as np

from cpu_ops.kernels.call import call_four
from cpu_ops.kernels.compile import SERIAL_WEIGHTS, inner, kernel
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import block_at, rows_at, scales_of, weights_of

PARTS = 48

# out float32 [n, k] = the rows of a block, each by the function at the address `widen`.
CALL = np.dtype([("rows", np.int64), ("widen", np.int64), ("out", np.int64)])
call_at = block_at(CALL)


@inner
def _decode_part(address: int, part: int) -> None:
    call = call_at(address)
    rows = rows_at(call.rows)
    for i in range(part * rows.n // PARTS, (part + 1) * rows.n // PARTS):
        call_four(call.widen, weights_of(rows, i), scales_of(rows, i), rows.k, call.out + i * rows.k * 4)


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
