"""The naked loop over chosen rows, out of order: what memory gives to gathered reads."""

import numpy as np

from cpu_ops.kernels.compile import inner, kernel
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import INPUT, ask, block_at, dot, floats_at, longs_at, rows_at

PARTS = 48
AHEAD = 2  # rows asked for before they are needed

# out float32 [m] = rows[which] · the one vector of x; which int64 [m].
CALL = np.dtype([("rows", np.int64), ("x", INPUT), ("which", np.int64), ("m", np.int64), ("out", np.int64)])
call_at = block_at(CALL)


@inner
def _gather_part(address: int, part: int) -> None:
    call = call_at(address)
    rows, which, out = rows_at(call.rows), longs_at(call.which, call.m), floats_at(call.out, call.m)
    first, last = part * call.m // PARTS, (part + 1) * call.m // PARTS
    for place in range(first, min(first + AHEAD, last)):
        ask(rows, which[place])
    for place in range(first, last):
        if place + AHEAD < last:
            ask(rows, which[place + AHEAD])
        out[place] = dot(rows, which[place], call.x, 0)


@kernel
def gather(address: int) -> None:
    """Fills `out` of the CALL at an address."""
    in_parallel(_gather_part, address, PARTS)
