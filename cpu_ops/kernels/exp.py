"""The exponential of a float32 vector, and of many.

e^x = 2^n · e^r with n the integer nearest to x/ln 2 and |r| ≤ ln(2)/2, where seven terms of the series leave 5e-9: less than
the rounding. Measured over millions of arguments from -87 to 88: within 1 unit in the last place.
"""

import math
from typing import Any

from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import (
    F32,
    I32,
    I64,
    Builder,
    Value,
    constant,
    load,
    multiply_add,
    offset,
    repeat,
    splat,
    store,
    total,
    variable,
    vector,
)

LANES = 16
MAGIC = 1.5 * 2.0**23  # added to a small number it leaves the nearest integer in the lowest bits
LOG2_E = 1 / math.log(2)
LN2_HIGH = 0.693145751953125  # 16 bits of ln 2, so that n · LN2_HIGH is exact
LN2_LOW = math.log(2) - LN2_HIGH
TERMS = 7
LEAST = -87.0  # below, 2^n is about to be subnormal: zero


def exponential(builder: Builder, x: Value) -> Value:
    """float32 vector, x ≤ 88 -> e^x; zero below LEAST; NaN stays NaN."""
    kind = x.type
    shifted = multiply_add(builder, x, constant(kind, LOG2_E), constant(kind, MAGIC))
    n = builder.fsub(shifted, constant(kind, MAGIC))
    r = multiply_add(builder, n, constant(kind, -LN2_HIGH), x)
    r = multiply_add(builder, n, constant(kind, -LN2_LOW), r)
    series = constant(kind, 1 / math.factorial(TERMS))
    for term in reversed(range(TERMS)):
        series = multiply_add(builder, series, r, constant(kind, 1 / math.factorial(term)))
    # the low bits of `shifted` hold n, and MAGIC's own do not reach the exponent that they are moved to
    whole = vector(I32, kind.count)
    exponent = builder.shl(builder.add(builder.bitcast(shifted, whole), constant(whole, 127)), constant(whole, 23))
    result = builder.fmul(series, builder.bitcast(exponent, kind))
    return builder.select(builder.fcmp_ordered("<", x, constant(kind, LEAST)), constant(kind, 0.0), result)


@intrinsic
def exp_all(typing: Any, at: Any, vectors: Any, shift: Any) -> Any:
    """x = e^(x - shift) for the LANES · `vectors` float32 values at address `at`; gives their sum, added in a fixed order."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        at, vectors, shift = arguments
        shifts = splat(builder, shift, LANES)
        sums = variable(builder, constant(vector(F32, LANES), 0.0))

        def step(index: Value) -> None:
            place = offset(builder, at, index, 4 * LANES)
            result = exponential(builder, builder.fsub(load(builder, place, vector(F32, LANES)), shifts))
            store(builder, result, place)
            builder.store(builder.fadd(builder.load(sums), result), sums)

        repeat(builder, constant(I64, 0), vectors, step)
        return total(builder, builder.load(sums))

    return types.float32(types.int64, types.int64, types.float32), emit
