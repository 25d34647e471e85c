"""The softmax of a tile's scores, all its queries at once: scores lie as `key_scores` leaves them, and stay there as weights.

Of `lanes` / `queries` neighbouring positions a vector holds the scores of every query, so that of 16 positions (a group) nothing moves
from lane to lane. Whatever tile a query is in, its weights are added up in one order: those of the same place in their groups first.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.exp import exponential
from cpu_ops.kernels.ir import F32, I32, I64, Builder, Value, constant, load, offset, pick, repeat, splat, store, variable, vector
from cpu_ops.kernels.pairs import lanes_of

GROUP = 16  # positions
LONG = types.int64


def _greater(builder: Builder, a: Value, b: Value) -> Value:
    """NaN does not count."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _soften(queries: int) -> Callable[..., Any]:
    """weights of positions low … high = e^(score - greatest); greatest and sum are written to headers + query · stride.

    `lows`, `highs` int32 [queries] say which of the positions a query sees: its other weights are zero. All are addresses and bytes.
    """

    def typed(typing: Any, weights: Any, low: Any, high: Any, lows: Any, highs: Any, headers: Any, stride: Any) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            if queries > lanes_of(builder):
                return context.get_dummy_value()
            weights, low, high, lows, highs, headers, stride = arguments
            lanes = lanes_of(builder)
            rows, floats, whole = lanes // queries, vector(F32, lanes), vector(I32, lanes)
            each = range(GROUP // rows)  # vectors of a group
            owners = [lane // rows for lane in range(lanes)]
            lowest, highest = (pick(builder, load(builder, at, vector(I32, queries)), owners) for at in (lows, highs))
            order = [ir.Constant(whole, [j * rows + lane % rows for lane in range(lanes)]) for j in each]
            first = builder.udiv(low, constant(I64, GROUP))
            last = builder.udiv(builder.add(high, constant(I64, GROUP - 1)), constant(I64, GROUP))
            most = [variable(builder, constant(floats, -math.inf)) for _ in each]
            sums = [variable(builder, constant(floats, 0.0)) for _ in each]

            def place(group: Value, j: int) -> Value:
                return builder.add(offset(builder, weights, group, GROUP * queries * 4), constant(I64, j * lanes * 4))

            def mask(group: Value) -> None:
                start = splat(builder, builder.trunc(builder.mul(group, constant(I64, GROUP)), I32), lanes)
                for j in each:
                    position = builder.add(start, order[j])
                    seen = builder.and_(builder.icmp_signed(">=", position, lowest), builder.icmp_signed("<", position, highest))
                    scores = builder.select(seen, load(builder, place(group, j), floats), constant(floats, -math.inf))
                    store(builder, scores, place(group, j))
                    builder.store(_greater(builder, scores, builder.load(most[j])), most[j])

            repeat(builder, first, last, mask)
            greatest = reduce(lambda a, b: _greater(builder, a, b), [builder.load(at) for at in most])
            for half in _halves(rows):
                greatest = _greater(builder, greatest, pick(builder, greatest, [lane ^ half for lane in range(lanes)]))

            def step(group: Value) -> None:
                for j in each:
                    weight = exponential(builder, builder.fsub(load(builder, place(group, j), floats), greatest))
                    store(builder, weight, place(group, j))
                    builder.store(builder.fadd(builder.load(sums[j]), weight), sums[j])

            repeat(builder, first, last, step)
            total = _added(builder, [builder.load(at) for at in sums])
            for half in _halves(rows):
                total = builder.fadd(total, pick(builder, total, [lane ^ half for lane in range(lanes)]))
            for i in range(queries):
                header = builder.add(headers, builder.mul(constant(I64, i), stride))
                for at, found in ((0, greatest), (4, total)):
                    store(builder, builder.extract_element(found, constant(I32, i * rows)), builder.add(header, constant(I64, at)))
            return context.get_dummy_value()

        return types.void(*[LONG] * 7), emit

    return intrinsic(typed)


def _halves(count: int) -> list[int]:
    return [count >> i for i in range(1, count.bit_length())]


def _added(builder: Builder, parts: Sequence[Value]) -> Value:
    """2^n vectors, halving their number."""
    for half in _halves(len(parts)):
        parts = [builder.fadd(a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
    return parts[0]


soften_one, soften_four, soften_eight = _soften(1), _soften(4), _soften(8)
