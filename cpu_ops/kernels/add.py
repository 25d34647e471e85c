"""The naked loop that adds rows of float32."""

import numpy as np

from cpu_ops.kernels.compile import inner, kernel
from cpu_ops.kernels.rows import block_at, floats_at

# out[T, width] = a + b; strides are bytes from one token to the next, 0 where all tokens share a row.
CALL = np.dtype([(name, np.int64) for name in ("a", "a_stride", "b", "b_stride", "tokens", "width", "out")])
call_at = block_at(CALL)


@inner
def _add_token(address: int, token: int) -> None:
    call = call_at(address)
    a, b = floats_at(call.a + token * call.a_stride, call.width), floats_at(call.b + token * call.b_stride, call.width)
    out = floats_at(call.out + token * call.width * 4, call.width)
    for column in range(call.width):
        out[column] = a[column] + b[column]


@kernel
def add(address: int) -> None:
    """Fills `out` of the CALL at an address."""
    for token in range(call_at(address).tokens):
        _add_token(address, token)
