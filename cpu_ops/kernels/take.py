"""The naked loop that copies rows of float32."""

import numpy as np

from cpu_ops.kernels.compile import inner, kernel
from cpu_ops.kernels.rows import block_at, floats_at, longs_at

# out[count, width] = x[which]; the bytes from one row of x to the next; which int64 [count].
CALL = np.dtype([(name, np.int64) for name in ("x", "x_stride", "which", "count", "width", "out")])
call_at = block_at(CALL)


@inner
def _take_one(address: int, place: int) -> None:
    call = call_at(address)
    i = longs_at(call.which, call.count)[place]
    floats_at(call.out + place * call.width * 4, call.width)[:] = floats_at(call.x + i * call.x_stride, call.width)


@kernel
def take(address: int) -> None:
    """Fills `out` of the CALL at an address."""
    for place in range(call_at(address).count):
        _take_one(address, place)
