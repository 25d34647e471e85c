"""Rotary positions of one row, and how a row of float32 gets into the cache. Rounds where the definition in torch rounds."""

from typing import Any

from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import exact_inner, intrinsic
from cpu_ops.kernels.ir import F32, I16, I32, I64, Builder, Value, constant, load, offset, repeat, store, vector
from cpu_ops.kernels.rows import floats_at

LANES = 8
QUIET_NAN = 0x7FC0


@exact_inner
def rotate(x: int, cos: int, sin: int, dim: int, scale: Any, out: int) -> None:
    """out float32 [dim] = x, its pairs (i, i + dim/2) turned, times `scale`. Addresses; cos and sin float32 [dim/2]."""
    half = dim // 2
    first, second = floats_at(x, half), floats_at(x + 4 * half, half)
    cosines, sines = floats_at(cos, half), floats_at(sin, half)
    low, high = floats_at(out, half), floats_at(out + 4 * half, half)
    for i in range(half):
        a, b, c, s = first[i], second[i], cosines[i], sines[i]  # read before writing: `out` may be `x`
        low[i] = (a * c - b * s) * scale
        high[i] = (b * c + a * s) * scale


@intrinsic
def _keep_bf16(typing: Any, x: Any, n: Any, out: Any) -> Any:
    """out bf16 [n] = x float32 [n], rounded to nearest even; `n` is a multiple of 8."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        x, n, out = arguments

        def step(index: Value) -> None:
            floats = load(builder, offset(builder, x, index, 4 * LANES), vector(F32, LANES))
            store(builder, _to_bf16(builder, floats), offset(builder, out, index, 2 * LANES))

        repeat(builder, constant(I64, 0), builder.udiv(n, constant(I64, LANES)), step)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


def _to_bf16(builder: Builder, floats: Value) -> Value:
    """float32 vector -> its upper halves as int16. Half of the lower half is added, less one when the upper is even."""
    wide = vector(I32, floats.type.count)
    bits = builder.bitcast(floats, wide)
    odd = builder.and_(builder.lshr(bits, constant(wide, 16)), constant(wide, 1))
    upper = builder.lshr(builder.add(bits, builder.add(odd, constant(wide, 0x7FFF))), constant(wide, 16))
    is_nan = builder.fcmp_unordered("uno", floats, floats)
    return builder.trunc(builder.select(is_nan, ir.Constant(wide, [QUIET_NAN] * LANES), upper), vector(I16, LANES))


@exact_inner
def keep(x: int, n: int, out: int, element_bytes: int) -> None:
    """Writes float32 [n] as bf16 (2 bytes an element) or as it is (4)."""
    if element_bytes == 2:
        _keep_bf16(x, n, out)
        return
    values, results = floats_at(x, n), floats_at(out, n)
    for i in range(n):
        results[i] = values[i]
