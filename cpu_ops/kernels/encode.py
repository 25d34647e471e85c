"""The naked loops that make int8 and int4 of float32 or bfloat16, to the bits of `Int8.encode` and `Int4.encode`.

A group whose numbers the formats' arithmetic cannot hold (NaN, infinity, all next to nothing) is only counted: whoever calls asks the
formats themselves then.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import exact_inner, exact_kernel, intrinsic
from cpu_ops.kernels.ir import F32, I8, I16, I32, Builder, Value, constant, load, pick, splat, store, vector
from cpu_ops.kernels.quantise import INFINITY_BITS, greatest
from cpu_ops.kernels.rows import block_at, floats_at, longs_at
from models.bits import GROUP

# Weights [n, 32·groups] and the bytes from one row to the next, whether they are bfloat16 (else float32), whether int4 is wanted (else
# int8); where quants go and the bytes from one row's to the next's; float32 steps [n, groups], an int64 that counts odd groups.
CALL = np.dtype(
    [(name, np.int64) for name in ("weights", "stride", "n", "groups", "bf16", "int4", "quants", "quants_stride", "steps", "odd")]
)
call_at = block_at(CALL)
HALF = GROUP // 2
F64 = ir.DoubleType()
FLOATS, INTS, DOUBLES = vector(F32, GROUP), vector(I32, GROUP), vector(F64, GROUP)
SIGN, SIZE = 0x80000000, 0x7FFFFFFF

Numbers = Callable[[Builder, Value], Value]  # address of a group -> float32 x 32
Quants = Callable[[Builder, Value, Value], Value]  # values, where the quants go -> the step, NaN for an odd group


def _floats(builder: Builder, address: Value) -> Value:
    return load(builder, address, FLOATS)


def _bf16(builder: Builder, address: Value) -> Value:
    wide = builder.zext(load(builder, address, vector(I16, GROUP)), INTS)
    return builder.bitcast(builder.shl(wide, constant(INTS, 16)), FLOATS)


def _int8(builder: Builder, values: Value, quants: Value) -> Value:
    """step = max|x| / 127; half away from zero, by adding a half of the same sign and cutting off."""
    _, most = _sizes(builder, values)
    step = builder.fdiv(builder.bitcast(most, F32), constant(F32, 127.0))
    inverse = _inverse(builder, step)
    scaled = builder.fmul(values, splat(builder, inverse, GROUP))
    signs = builder.and_(builder.bitcast(scaled, INTS), constant(INTS, SIGN))
    halves = builder.bitcast(builder.or_(signs, builder.bitcast(constant(FLOATS, 0.5), INTS)), FLOATS)
    whole = builder.fptosi(builder.fadd(scaled, halves), INTS)
    store(builder, builder.trunc(whole, vector(I8, GROUP)), quants)
    return _step_or_nan(builder, step, inverse, most)


def _int4(builder: Builder, values: Value, quants: Value) -> Value:
    """step = the first of the weights of greatest magnitude / -8; q = x / step + 8.5 in float64, cut off, at most 15."""
    sizes, most = _sizes(builder, values)
    step = builder.fdiv(_signed(builder, values, sizes, most), constant(F32, -8.0))
    inverse = _inverse(builder, step)
    exact = builder.fmul(builder.fpext(values, DOUBLES), splat(builder, builder.fpext(inverse, F64), GROUP))
    whole = builder.fptosi(builder.fadd(exact, constant(DOUBLES, 8.5)), INTS)
    whole = builder.select(builder.icmp_signed("<", whole, constant(INTS, 15)), whole, constant(INTS, 15))
    low, high = pick(builder, whole, range(HALF)), pick(builder, whole, range(HALF, GROUP))
    both = builder.or_(low, builder.shl(high, constant(high.type, 4)))
    store(builder, builder.trunc(both, vector(I8, HALF)), quants)
    return _step_or_nan(builder, step, inverse, most)


def _sizes(builder: Builder, values: Value) -> tuple[Value, Value]:
    """Magnitudes as integers, which sort as floats do, and the greatest."""
    sizes = builder.and_(builder.bitcast(values, INTS), constant(INTS, SIZE))
    return sizes, greatest(builder, sizes)


def _signed(builder: Builder, values: Value, sizes: Value, most: Value) -> Value:
    """The first value whose magnitude is `most`."""
    wide = ir.IntType(GROUP)
    those = builder.bitcast(builder.icmp_unsigned("==", sizes, splat(builder, most, GROUP)), wide)
    negative = builder.bitcast(builder.icmp_signed("<", builder.bitcast(values, INTS), constant(INTS, 0)), wide)
    first = builder.and_(those, builder.neg(those))  # its lowest bit
    sign = builder.icmp_unsigned("!=", builder.and_(first, negative), constant(wide, 0))
    return builder.bitcast(builder.or_(most, builder.select(sign, constant(I32, SIGN), constant(I32, 0))), F32)


def _inverse(builder: Builder, step: Value) -> Value:
    """1 / step, and 0 for 0."""
    some = builder.fcmp_unordered("!=", step, constant(F32, 0.0))
    return builder.select(some, builder.fdiv(constant(F32, 1.0), step), constant(F32, 0.0))


def _step_or_nan(builder: Builder, step: Value, inverse: Value, most: Value) -> Value:
    inverse_bits = builder.and_(builder.bitcast(inverse, I32), constant(I32, SIZE))
    finite = [builder.icmp_unsigned("<", bits, constant(I32, INFINITY_BITS)) for bits in (inverse_bits, most)]
    return builder.select(builder.and_(*finite), step, ir.Constant(F32, float("nan")))


def _group(numbers: Numbers, quants: Quants) -> Callable[[int, int], float]:
    def typed(typing: Any, address: Any, out: Any) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            return quants(builder, numbers(builder, arguments[0]), arguments[1])

        return types.float32(types.int64, types.int64), emit

    return intrinsic(typed)


int8_of_floats, int8_of_bf16 = _group(_floats, _int8), _group(_bf16, _int8)
int4_of_floats, int4_of_bf16 = _group(_floats, _int4), _group(_bf16, _int4)


@exact_inner
def _step_of(bf16: int, int4: int, weights: int, quants: int) -> float:
    if bf16:
        return int4_of_bf16(weights, quants) if int4 else int8_of_bf16(weights, quants)
    return int4_of_floats(weights, quants) if int4 else int8_of_floats(weights, quants)


@exact_kernel
def encode(address: int) -> None:
    """Fills quants, steps and the count of odd groups of the CALL at an address."""
    call = call_at(address)
    steps, bf16, int4 = floats_at(call.steps, call.n * call.groups), call.bf16, call.int4
    weights_bytes, quants_bytes = GROUP * (2 if bf16 else 4), HALF if int4 else GROUP
    odd = 0
    for row in range(call.n):
        weights, quants = call.weights + row * call.stride, call.quants + row * call.quants_stride
        for group in range(call.groups):
            step = _step_of(bf16, int4, weights + group * weights_bytes, quants + group * quants_bytes)
            steps[row * call.groups + group] = step
            odd += step != step
    longs_at(call.odd, 1)[0] = odd
