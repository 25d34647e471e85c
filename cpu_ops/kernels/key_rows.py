"""The two products of attention, written as vector IR: queries with keys, weights with values. A tile keeps eight sums in registers.

A key or value is widened once for all queries of its tile. Which tile a query is in changes none of its bits: a score's lanes are
added in one order, and values are added in the order of their positions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types

from cpu_ops.kernels.bf16 import Bf16Code
from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.float32 import Float32Code
from cpu_ops.kernels.float_rows import FloatRowCode
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
    pick,
    repeat,
    splat,
    store,
    variable,
    vector,
)

LANES = 8
LONG = types.int64
FLOATS = vector(F32, LANES)


def _two(builder: Builder, a: Value, b: Value, lanes: Sequence[int]) -> Value:
    """Lanes of `a`, then of `b`, which count from 8 on."""
    return builder.shuffle_vector(a, b, ir.Constant(vector(I32, LANES), [ir.Constant(I32, lane) for lane in lanes]))


def eight_totals(builder: Builder, parts: Sequence[Value]) -> Value:
    """Eight vectors of eight lanes -> the vector of their sums: seven additions instead of twenty-four."""
    ways = (
        ((0, 8, 1, 9, 4, 12, 5, 13), (2, 10, 3, 11, 6, 14, 7, 15)),
        ((0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
        ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
    )
    for low, high in ways:
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
        parts = [builder.fadd(_two(builder, a, b, low), _two(builder, a, b, high)) for a, b in pairs]
    return parts[0]


def _scores(queries: int, code: FloatRowCode) -> Callable[..., Any]:
    """A tile of `queries` × 8 / `queries` scores: float32 queries and keys at addresses, written to out + query · out_stride.

    Keys after the `last` one (counted from the tile's first) are read as that one. For a single query they are read one after
    the other, a stream that the hardware sees: 20 GB/s where eight at a time gave 15.
    """
    rows = 8 // queries

    def typed(typing: Any, q: Any, q_stride: Any, keys: Any, key_stride: Any, last: Any, dim: Any, out: Any, out_stride: Any) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            q, q_stride, keys, key_stride, last, dim, out, out_stride = arguments
            query_at = [builder.add(q, builder.mul(constant(I64, i), q_stride)) for i in range(queries)]
            key_at = [builder.add(keys, builder.mul(_least(builder, constant(I64, i), last), key_stride)) for i in range(rows)]
            sums = [variable(builder, constant(FLOATS, 0.0)) for _ in range(8)]

            def step(index: Value, these: range) -> None:
                wide = [code.weights(builder, offset(builder, key_at[j], index, LANES * code.weight_bytes), LANES) for j in these]
                for i, at in enumerate(query_at):
                    query = load(builder, offset(builder, at, index, LANES * 4), FLOATS)
                    for j, key in zip(these, wide, strict=True):
                        sum_at = sums[i * rows + j]
                        builder.store(multiply_add(builder, query, key, builder.load(sum_at)), sum_at)

            passes = [range(rows)] if queries > 1 else [range(j, j + 1) for j in range(rows)]
            for these in passes:
                repeat(builder, constant(I64, 0), builder.udiv(dim, constant(I64, LANES)), partial(step, these=these))
            results = eight_totals(builder, [builder.load(sum_at) for sum_at in sums])
            for i in range(queries):
                own = pick(builder, results, range(i * rows, (i + 1) * rows))
                store(builder, own, builder.add(out, builder.mul(constant(I64, i), out_stride)))
            return context.get_dummy_value()

        return types.void(*[LONG] * 8), emit

    return intrinsic(typed)


def _least(builder: Builder, a: Value, b: Value) -> Value:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _mix(queries: int, vectors: int, code: FloatRowCode) -> Callable[..., Any]:
    """out[8 · vectors] += Σ weight · value over `count` positions, in their order, for each query of a tile. All are addresses."""

    def typed(typing: Any, weights: Any, weight_stride: Any, values: Any, value_stride: Any, count: Any, out: Any, out_stride: Any) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            weights, weight_stride, values, value_stride, count, out, out_stride = arguments
            weight_at = [builder.add(weights, builder.mul(constant(I64, i), weight_stride)) for i in range(queries)]
            out_at = [builder.add(out, builder.mul(constant(I64, i), out_stride)) for i in range(queries)]
            places = [[builder.add(at, constant(I64, j * LANES * 4)) for j in range(vectors)] for at in out_at]
            sums = [[variable(builder, load(builder, place, FLOATS)) for place in row] for row in places]

            def step(index: Value) -> None:
                at = builder.add(values, builder.mul(index, value_stride))
                size = LANES * code.weight_bytes
                wide = [code.weights(builder, builder.add(at, constant(I64, j * size)), LANES) for j in range(vectors)]
                for own, row in zip(weight_at, sums, strict=True):
                    weight = splat(builder, load(builder, offset(builder, own, index, 4), F32), LANES)
                    for sum_at, value in zip(row, wide, strict=True):
                        builder.store(multiply_add(builder, weight, value, builder.load(sum_at)), sum_at)

            repeat(builder, constant(I64, 0), count, step)
            for row, own_places in zip(sums, places, strict=True):
                for sum_at, place in zip(row, own_places, strict=True):
                    store(builder, builder.load(sum_at), place)
            return context.get_dummy_value()

        return types.void(*[LONG] * 7), emit

    return intrinsic(typed)


BF16, FLOAT32 = Bf16Code(), Float32Code()
score_four_bf16, score_four_float32 = _scores(4, BF16), _scores(4, FLOAT32)
score_one_bf16, score_one_float32 = _scores(1, BF16), _scores(1, FLOAT32)
mix_four_bf16, mix_four_float32 = _mix(4, 2, BF16), _mix(4, 2, FLOAT32)
mix_one_bf16, mix_one_float32 = _mix(1, 8, BF16), _mix(1, 8, FLOAT32)
mix_narrow_bf16, mix_narrow_float32 = _mix(1, 2, BF16), _mix(1, 2, FLOAT32)
