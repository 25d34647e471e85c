"""The naked loop of rotary angles: their cosines and sines, in float32 as the definition in torch has them."""

import math

import numpy as np

from cpu_ops.kernels.compile import SERIAL_WEIGHTS, exact_inner, exact_kernel
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import block_at, floats_at, longs_at

# positions int64 [tokens]; frequencies float32 [half]; cos and sin float32 [tokens, half].
CALL = np.dtype([(name, np.int64) for name in ("positions", "tokens", "frequencies", "half", "cos", "sin")] + [("factor", np.float64)])
call_at = block_at(CALL)


@exact_inner
def _turn_token(address: int, token: int) -> None:
    call = call_at(address)
    position, factor = np.float32(longs_at(call.positions, call.tokens)[token]), np.float32(call.factor)
    frequencies = floats_at(call.frequencies, call.half)
    cos, sin = floats_at(call.cos + token * call.half * 4, call.half), floats_at(call.sin + token * call.half * 4, call.half)
    for i in range(call.half):
        angle = position * frequencies[i]
        cos[i], sin[i] = np.float32(math.cos(angle)) * factor, np.float32(math.sin(angle)) * factor


@exact_kernel
def angles(address: int) -> None:
    """cos, sin = those of position · frequency, times `factor`, of the CALL at an address."""
    call = call_at(address)
    if call.tokens * call.half <= SERIAL_WEIGHTS // 16:  # a cosine takes as long as some sixteen products
        for token in range(call.tokens):
            _turn_token(address, token)
    else:
        in_parallel(_turn_token, address, call.tokens)
