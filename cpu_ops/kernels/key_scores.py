"""Queries with keys. A tile's sums stay in registers, and a key is widened once for all queries of its tile.

Which tile a query is in changes none of its bits: a score is added up in one order.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import (
    F32,
    I64,
    Builder,
    Value,
    choose,
    constant,
    joined,
    load,
    multiply_add,
    offset,
    pick,
    repeat,
    store,
    variable,
    vector,
)
from cpu_ops.kernels.pairs import Pairs, by_pairs, lanes_of
from cpu_ops.kernels.query_tile import by_tile_and_element
from cpu_ops.kernels.stream import Stream, ask

COMMON_DIMS = (64, 128)  # a loop over so few steps costs as much as what it does
LONG = types.int64
Rows = Sequence[tuple[int, Value, Value]]  # which of a block's rows, its address, and what is asked for meanwhile


def _totals(builder: Builder, parts: Sequence[Value]) -> Value:
    """As many vectors as each has lanes -> the vector of their sums.

    A shuffle stays within 128 bits or moves them whole, which takes no vector of indices.
    """
    lanes = parts[0].type.count
    fours = range(0, lanes, 4)
    neighbours = [[at + own for at in fours for lane in two for own in (lane, lanes + lane)] for two in ((0, 1), (2, 3))]
    doubles = [[at + own + lane for at in fours for own in (0, lanes) for lane in two] for two in ((0, 1), (2, 3))]
    quarters = [[at + lane for at in range(first, 2 * lanes, 8) for lane in range(4)] for first in (0, 4)]
    ways = [neighbours, doubles, *[quarters] * (lanes.bit_length() - 3)]
    for way in ways:
        pairs = [joined(builder, a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        parts = [builder.fadd(*(pick(builder, pair, each) for each in way)) for pair in pairs]
    return parts[0]


class Tile:
    """`queries` at a time with as many rows as there are registers for, all in one block of code."""

    def __init__(self, builder: Builder, queries: int, pairs: Pairs, arguments: Sequence[Value]) -> None:
        self.builder, self.queries, self.pairs = builder, queries, pairs
        self.q, self.keys, self.stride, self.count, self.dim, self.out, after, far = arguments
        self.stream = Stream(self.keys, self.stride, self.count, after, far)
        self.lanes = lanes_of(builder)
        self.rows, self.step_bytes = self.lanes // queries, 2 * self.lanes * pairs.element_bytes
        zero = constant(vector(F32, self.lanes), 0.0)
        self.sums = [[variable(builder, zero) for _ in range(self.rows)] for _ in range(queries)]

    def score(self, known: int | None) -> None:
        """All rows; of a `known` dim without a loop over it."""
        builder, rows = self.builder, constant(I64, self.rows)
        steps = range(known // (2 * self.lanes)) if known else ()
        kept = [self._queries(constant(I64, step)) for step in steps] if self.queries == 1 else []
        together = self.rows if self.queries > 1 else 2 if known else 4
        last = builder.mul(builder.sub(self.count, constant(I64, 1)), self.stride)

        def block(index: Value) -> None:
            first = builder.mul(index, rows)
            self._clear()
            ahead, start = self.stream.ahead(builder, first), builder.mul(first, self.stride)
            for j in range(0, self.rows, together):
                these = [self._row(i, start, last, ahead) for i in range(j, j + together)]
                if known:
                    for step in steps:
                        self._step(these, constant(I64, step), kept[step] if kept else None)
                else:
                    by_pairs(builder, self.dim, partial(self._step, these), partial(self._half, these))
            self._write(first)

        blocks = builder.udiv(builder.add(self.count, constant(I64, self.rows - 1)), rows)
        repeat(builder, constant(I64, 0), blocks, block)

    def _clear(self) -> None:
        for own in self.sums:
            for sum_at in own:
                self.builder.store(constant(vector(F32, self.lanes), 0.0), sum_at)

    def _row(self, j: int, start: Value, last: Value, ahead: Value) -> tuple[int, Value, Value]:
        """Rows after the last are read as the last one."""
        builder = self.builder
        along = builder.mul(constant(I64, j), self.stride)
        place = builder.add(start, along)
        place = builder.select(builder.icmp_signed("<", place, last), place, last)
        return j, builder.add(self.keys, place), builder.add(ahead, along)

    def _queries(self, step: Value) -> list[Value]:
        """[2 · queries] vectors."""
        builder = self.builder
        first = offset(builder, self.q, step, self.queries * 2 * self.lanes * 4)
        places = (builder.add(first, constant(I64, i * self.lanes * 4)) for i in range(2 * self.queries))
        return [load(builder, place, vector(F32, self.lanes)) for place in places]

    def _step(self, rows: Rows, step: Value, queries: list[Value] | None = None) -> None:
        for _, _, ahead in rows:
            ask(self.builder, offset(self.builder, ahead, step, self.step_bytes), self.step_bytes)
        self._add(rows, step, self.pairs.both, queries)

    def _half(self, rows: Rows, step: Value) -> None:
        self._add(rows, step, self.pairs.half, None)

    def _add(self, rows: Rows, step: Value, read: Callable[..., list[Value]], queries: list[Value] | None) -> None:
        builder = self.builder
        parts = [(j, read(builder, offset(builder, at, step, self.step_bytes), self.lanes)) for j, at, _ in rows]
        vectors = queries or self._queries(step)
        for half in range(2):
            for query, own in zip(vectors[half::2], self.sums, strict=True):
                for j, part in parts:
                    builder.store(multiply_add(builder, query, part[half], builder.load(own[j])), own[j])

    def _write(self, first: Value) -> None:
        """One vector. Scores of each query apart lay whole KiB from each other, and took 14.0 cycles a cache line of eight queries' keys
        instead of 11.1: presumably the next block's queries, the same in their lowest 12 address bits, waited for them."""
        found = _totals(self.builder, [self.builder.load(sum_at) for own in self.sums for sum_at in own])
        store(self.builder, found, offset(self.builder, self.out, first, self.queries * 4))


def emit_scores(queries: int, pairs: Pairs, builder: Builder, arguments: Sequence[Value]) -> None:
    tile = Tile(builder, queries, pairs, arguments)
    choose(builder, tile.dim, {dim: partial(tile.score, dim) for dim in COMMON_DIMS}, partial(tile.score, None))


@intrinsic
def score(
    typing: Any, tile: Any, element_bytes: Any, q: Any, keys: Any, stride: Any, count: Any, dim: Any, out: Any, after: Any, far: Any
) -> Any:
    """out = a tile's spread queries · `count` rows: float32 [count / n, tile, n], n · tile being a vector. All are addresses and bytes."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        by_tile_and_element(builder, arguments, emit_scores)
        return context.get_dummy_value()

    return types.void(*[LONG] * 10), emit
