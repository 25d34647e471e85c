"""The naked loop that rectifies float32 where it lies."""

import numpy as np

from cpu_ops.kernels.compile import exact_kernel
from cpu_ops.kernels.rows import block_at, floats_at

CALL = np.dtype([("x", np.int64), ("count", np.int64)])
call_at = block_at(CALL)


@exact_kernel
def relu(address: int) -> None:
    """x = 0 where it is below, in the CALL at an address. NaN stays NaN."""
    call = call_at(address)
    values = floats_at(call.x, call.count)
    for i in range(call.count):
        values[i] = np.float32(0.0) if values[i] < np.float32(0.0) else values[i]
