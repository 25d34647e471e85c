"""The softmax of a tile's scores, all its queries at once: scores lie as `key_scores` leaves them, and stay there as weights.

Of `lanes` / `queries` neighbouring positions a vector holds the scores of every query, so that of 16 positions (a group) nothing moves
from lane to lane. Whatever tile a query is in, its weights are added up in one order: those of the same place in their groups first.
"""

import math
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.exp import exponential
from cpu_ops.kernels.ir import F32, I32, I64, Builder, Value, constant, load, offset, pick, repeat, splat, store, variable, vector
from cpu_ops.kernels.pairs import lanes_of
from cpu_ops.kernels.query_tile import by_tile

GROUP = 16  # positions
LONG = types.int64


def _greater(builder: Builder, a: Value, b: Value) -> Value:
    """NaN does not count."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


class Tile:
    """Scores that become weights, group after group. `lows`, `highs` int32 [queries]: which positions each query sees."""

    def __init__(self, builder: Builder, queries: int, arguments: Sequence[Value]) -> None:
        self.builder, self.queries = builder, queries
        self.weights, low, high, lows, highs, self.headers, self.stride = arguments
        self.lanes = lanes_of(builder)
        self.rows, self.floats, self.whole = self.lanes // queries, vector(F32, self.lanes), vector(I32, self.lanes)
        self.each = range(GROUP // self.rows)  # vectors of a group
        owners = [lane // self.rows for lane in range(self.lanes)]
        self.lowest, self.highest = (pick(builder, load(builder, at, vector(I32, queries)), owners) for at in (lows, highs))
        self.first = builder.udiv(low, constant(I64, GROUP))
        self.last = builder.udiv(builder.add(high, constant(I64, GROUP - 1)), constant(I64, GROUP))
        self.most = [variable(builder, constant(self.floats, -math.inf)) for _ in self.each]
        self.sums = [variable(builder, constant(self.floats, 0.0)) for _ in self.each]

    def mask(self) -> Value:
        """Leaves what is not seen at -inf; gives each query's greatest score, in all its lanes."""
        builder = self.builder
        repeat(builder, self.first, self.last, self._mask_group)
        greatest = reduce(lambda a, b: _greater(builder, a, b), [builder.load(at) for at in self.most])
        for half in _halves(self.rows):
            greatest = _greater(builder, greatest, self._across(greatest, half))
        return greatest

    def weigh(self, greatest: Value) -> Value:
        """Scores become e^(score - greatest); gives each query's sum of them, in all its lanes."""
        builder = self.builder
        repeat(builder, self.first, self.last, partial(self._weigh_group, greatest))
        total = _added(builder, [builder.load(at) for at in self.sums])
        for half in _halves(self.rows):
            total = builder.fadd(total, self._across(total, half))
        return total

    def _mask_group(self, group: Value) -> None:
        builder = self.builder
        start = splat(builder, builder.trunc(builder.mul(group, constant(I64, GROUP)), I32), self.lanes)
        for j in self.each:
            position = builder.add(start, ir.Constant(self.whole, [j * self.rows + lane % self.rows for lane in range(self.lanes)]))
            seen = builder.and_(builder.icmp_signed(">=", position, self.lowest), builder.icmp_signed("<", position, self.highest))
            scores = builder.select(seen, load(builder, self._place(group, j), self.floats), constant(self.floats, -math.inf))
            store(builder, scores, self._place(group, j))
            builder.store(_greater(builder, scores, builder.load(self.most[j])), self.most[j])

    def _weigh_group(self, greatest: Value, group: Value) -> None:
        builder = self.builder
        for j in self.each:
            weight = exponential(builder, builder.fsub(load(builder, self._place(group, j), self.floats), greatest))
            store(builder, weight, self._place(group, j))
            builder.store(builder.fadd(builder.load(self.sums[j]), weight), self.sums[j])

    def _place(self, group: Value, j: int) -> Value:
        at = offset(self.builder, self.weights, group, GROUP * self.queries * 4)
        return self.builder.add(at, constant(I64, j * self.lanes * 4))

    def _across(self, vector_: Value, half: int) -> Value:
        return pick(self.builder, vector_, [lane ^ half for lane in range(self.lanes)])


def emit_soften(queries: int, builder: Builder, arguments: Sequence[Value]) -> None:
    tile = Tile(builder, queries, arguments)
    greatest = tile.mask()
    total = tile.weigh(greatest)
    for i in range(queries):
        header = builder.add(tile.headers, builder.mul(constant(I64, i), tile.stride))
        for at, found in ((0, greatest), (4, total)):
            store(builder, builder.extract_element(found, constant(I32, i * tile.rows)), builder.add(header, constant(I64, at)))


@intrinsic
def soften(typing: Any, tile: Any, weights: Any, low: Any, high: Any, lows: Any, highs: Any, headers: Any, stride: Any) -> Any:
    """weights of positions low … high = e^(score - greatest); greatest and sum are written to headers + query · stride.

    `lows`, `highs` int32 [tile] say which of the positions a query sees: its other weights are zero. All are addresses and bytes.
    """

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        by_tile(builder, arguments[0], lambda queries: emit_soften(queries, builder, arguments[1:]))
        return context.get_dummy_value()

    return types.void(*[LONG] * 8), emit


def _halves(count: int) -> list[int]:
    return [count >> i for i in range(1, count.bit_length())]


def _added(builder: Builder, parts: Sequence[Value]) -> Value:
    """2^n vectors, halving their number."""
    for half in _halves(len(parts)):
        parts = [builder.fadd(a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
    return parts[0]
