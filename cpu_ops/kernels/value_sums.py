"""Weights with values. A tile's sums stay in registers, and a value is widened once for all queries of its tile.

Which tile a query is in changes none of its bits: values are added in the order of their positions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import F32, I64, Builder, Value, constant, load, multiply_add, offset, repeat, splat, store, variable, vector
from cpu_ops.kernels.pairs import Pairs, lanes_of
from cpu_ops.kernels.query_tile import by_tile_and_element
from cpu_ops.kernels.stream import Stream, ask

BLOCK = 32  # positions that all strips of columns pass over in turn
LONG = types.int64
Read = Callable[[Builder, Value, int], list[Value]]


class Tile:
    """`queries` at a time, strip by strip of columns, each as wide as there are registers for its sums."""

    def __init__(self, builder: Builder, queries: int, pairs: Pairs, arguments: Sequence[Value]) -> None:
        self.builder, self.queries, self.pairs = builder, queries, pairs
        self.weights, self.start, self.values, self.stride, self.count, self.dim, out, out_stride, after, far = arguments
        self.lanes = lanes_of(builder)
        self.rows, self.step_bytes = self.lanes // queries, 2 * self.lanes * pairs.element_bytes
        self.out = [builder.add(out, builder.mul(constant(I64, i), out_stride)) for i in range(queries)]
        self.stream = Stream(self.values, self.stride, self.count, after, far)

    def mix(self) -> None:
        """All rows, a block of them at a time."""
        builder = self.builder
        blocks = builder.udiv(builder.add(self.count, constant(I64, BLOCK - 1)), constant(I64, BLOCK))
        repeat(builder, constant(I64, 0), blocks, self._block)

    def _block(self, index: Value) -> None:
        builder, wide = self.builder, constant(I64, 2 * self.lanes)
        first = builder.mul(index, constant(I64, BLOCK))
        last = _least(builder, builder.add(first, constant(I64, BLOCK)), self.count)
        over = partial(self._strip, first, last, self.stream.ahead(builder, first))
        column, steps = constant(I64, 0), builder.udiv(self.dim, wide)
        for n in _strips(self.queries, self.lanes):
            strips = builder.udiv(builder.sub(steps, column), constant(I64, n))

            def strip(index: Value, column: Value = column, n: int = n) -> None:
                over(self.pairs.both, n, builder.add(column, builder.mul(index, constant(I64, n))))

            repeat(builder, constant(I64, 0), strips, strip)
            column = builder.add(column, builder.mul(strips, constant(I64, n)))
        with builder.if_then(builder.icmp_signed("<", builder.mul(steps, wide), self.dim)):
            over(self.pairs.half, 1, steps)

    def _strip(self, first: Value, last: Value, ahead: Value, read: Read, n: int, column: Value) -> None:
        """n pairs of vectors from the one of number `column` on, over rows first … last."""
        builder, lanes = self.builder, self.lanes
        starts = [offset(builder, at, column, 2 * lanes * 4) for at in self.out]
        places = [[builder.add(at, constant(I64, j * lanes * 4)) for j in range(2 * n)] for at in starts]
        sums = [[variable(builder, load(builder, place, vector(F32, lanes))) for place in row] for row in places]

        def step(index: Value) -> None:
            along = offset(builder, builder.mul(index, self.stride), column, self.step_bytes)
            ask(builder, builder.add(ahead, builder.sub(along, builder.mul(first, self.stride))), n * self.step_bytes)
            at = builder.add(self.values, along)
            each = (read(builder, builder.add(at, constant(I64, j * self.step_bytes)), lanes) for j in range(n))
            self._add(index, [part for pair in each for part in pair], sums)

        repeat(builder, first, last, step)
        for row, own_places in zip(sums, places, strict=True):
            for sum_at, place in zip(row, own_places, strict=True):
                store(builder, builder.load(sum_at), place)

    def _add(self, index: Value, parts: Sequence[Value], sums: Sequence[Sequence[Value]]) -> None:
        """Row `index`, of which `parts` are in registers, times each query's weight."""
        builder, place = self.builder, self.builder.add(self.start, index)
        within = builder.and_(place, constant(I64, self.rows - 1))
        its = offset(builder, offset(builder, self.weights, builder.sub(place, within), self.queries * 4), within, 4)
        for i, row in enumerate(sums):
            own = builder.add(its, constant(I64, i * self.rows * 4))
            weight = splat(builder, load(builder, own, F32), self.lanes)
            for sum_at, value in zip(row, parts, strict=True):
                builder.store(multiply_add(builder, weight, value, builder.load(sum_at)), sum_at)


def _least(builder: Builder, a: Value, b: Value) -> Value:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _strips(queries: int, sums: int) -> Sequence[int]:
    """How many pairs of vectors a strip is wide: as many as registers hold, then fewer."""
    most = min(max(sums // (2 * queries), 1), 4)
    return [n for n in (4, 2, 1) if n <= most]


def emit_mix(queries: int, pairs: Pairs, builder: Builder, arguments: Sequence[Value]) -> None:
    Tile(builder, queries, pairs, arguments).mix()


@intrinsic
def mix(
    typing: Any,
    tile: Any,
    element_bytes: Any,
    weights: Any,
    start: Any,
    values: Any,
    stride: Any,
    count: Any,
    dim: Any,
    out: Any,
    out_stride: Any,
    after: Any,
    far: Any,
) -> Any:
    """out[tile, dim] += Σ weight · row over `count` rows, in their order, for sums that are spread. All are addresses and bytes.

    `weights` as `key_scores` lays out a tile's, the first one's at position `start`.
    """

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        by_tile_and_element(builder, arguments, emit_mix)
        return context.get_dummy_value()

    return types.void(*[LONG] * 12), emit
