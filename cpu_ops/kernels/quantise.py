"""The naked loop of `models.formats.base.quantise_input`, bit for bit: int8 per group of 32."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import SERIAL_WEIGHTS, exact_inner, exact_kernel, intrinsic
from cpu_ops.kernels.ir import F32, I8, I32, Builder, Value, constant, load, pick, splat, store, vector
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import block_at, floats_at
from models.bits import GROUP

MAGIC = 1.5 * 2.0**23  # added to a small number it leaves the nearest integer, half to even, in the lowest bits
INFINITY_BITS = 0x7F800000

# Where x lies and the bytes from one token to the next, and where the quants and scales go.
CALL = np.dtype([(name, np.int64) for name in ("x", "x_stride", "tokens", "groups", "quants", "scales")])
call_at = block_at(CALL)
FLOATS, INTS = vector(F32, GROUP), vector(I32, GROUP)


def greatest(builder: Builder, a: Value) -> Value:
    """The greatest lane of an unsigned vector."""
    while (half := a.type.count // 2) >= 1:
        low, high = pick(builder, a, range(half)), pick(builder, a, range(half, 2 * half))
        a = builder.select(builder.icmp_unsigned(">", low, high), low, high)
    return builder.extract_element(a, constant(I32, 0))


@intrinsic
def quantise_group(typing: Any, x: Any, quants: Any) -> Any:
    """Writes the group's 32 quants and gives its scale. As integers, sizes of floats sort as floats do, NaN above infinity."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        values = load(builder, arguments[0], FLOATS)
        sizes = builder.and_(builder.bitcast(values, INTS), constant(INTS, 0x7FFFFFFF))
        most_bits = greatest(builder, sizes)
        most = builder.bitcast(most_bits, F32)
        inverse = builder.fdiv(constant(F32, 127.0), most)
        finite = builder.icmp_unsigned("<", most_bits, constant(I32, INFINITY_BITS))
        # no quants where 127/most or most itself is beyond float32: 0 · infinity and infinity count as 0
        usable = builder.and_(finite, builder.fcmp_ordered("<", inverse, constant(F32, float("inf"))))
        scaled = builder.fmul(values, splat(builder, inverse, GROUP))
        rounded = builder.bitcast(builder.fadd(scaled, constant(FLOATS, MAGIC)), INTS)
        whole = builder.sub(rounded, builder.bitcast(constant(FLOATS, MAGIC), INTS))
        kept = builder.and_(whole, splat(builder, builder.sext(usable, I32), GROUP))
        store(builder, builder.trunc(kept, vector(I8, GROUP)), arguments[1])
        return builder.select(finite, builder.fdiv(most, constant(F32, 127.0)), ir.Constant(F32, float("nan")))

    return types.float32(types.int64, types.int64), emit


@exact_inner
def _quantise_token(address: int, token: int) -> None:
    call = call_at(address)
    groups, x, quants = call.groups, call.x + token * call.x_stride, call.quants + token * call.groups * GROUP
    scales = floats_at(call.scales + token * groups * 4, groups)
    for group in range(groups):
        scales[group] = quantise_group(x + group * GROUP * 4, quants + group * GROUP)


@exact_kernel
def quantise(address: int) -> None:
    """x float32 [T, 32·groups] -> quants int8 [T, 32·groups], scales float32 [T, groups], of the CALL at an address."""
    call = call_at(address)
    if call.tokens * call.groups * GROUP <= SERIAL_WEIGHTS:
        for token in range(call.tokens):
            _quantise_token(address, token)
    else:
        in_parallel(_quantise_token, address, call.tokens)
