"""The two products of attention, written as vector IR: queries with keys, weights with values.

A key or value is widened once for all queries of its tile, and a tile's sums stay in registers. bf16 is taken in pairs, as int32: the even
one of a pair becomes a float by a shift, the odd one by a mask, where widening in order would need a shuffle. So queries and sums lie
*spread*: of every 2 · lanes numbers first the even ones, then the odd ones, filled up with zeros. Which tile a query is in changes none of
its bits: a score is added up in one order, and values are added in the order of their positions.

While rows are read, those `far` rows ahead are asked for, and at the end of them what comes `next`: a part's keys, its values and the next
part's keys are one stream, whose ends no prefetcher of the hardware would see.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import (
    CACHE_LINE,
    F32,
    I32,
    I64,
    Builder,
    Value,
    constant,
    joined,
    load,
    multiply_add,
    offset,
    pick,
    prefetch,
    repeat,
    splat,
    store,
    totals,
    variable,
    vector,
)
from cpu_ops.kernels.target import target_of

CHUNK = 256  # positions of a unit, 64 KiB of keys in heads of 128, which stay in the second cache for all tiles of queries
WIDEST = 32  # numbers that spread ones are filled up to, whatever the target
BLOCK = 32  # positions that all strips of columns pass over in turn
LONG = types.int64


class Pairs(NamedTuple):
    """Two float32 vectors for 2 · lanes numbers of a row; for half as many, the rest zero."""

    element_bytes: int

    def both(self, builder: Builder, address: Value, lanes: int) -> list[Value]:
        if self.element_bytes == 4:
            return [load(builder, builder.add(address, constant(I64, at)), vector(F32, lanes)) for at in (0, 4 * lanes)]
        return _widened(builder, load(builder, address, vector(I32, lanes)))

    def half(self, builder: Builder, address: Value, lanes: int) -> list[Value]:
        if self.element_bytes == 4:
            return [load(builder, address, vector(F32, lanes)), constant(vector(F32, lanes), 0.0)]
        few = load(builder, address, vector(I32, lanes // 2))
        return _widened(builder, joined(builder, few, constant(few.type, 0)))

    def apart(self, builder: Builder, row: Value) -> list[Value]:
        """The two vectors, of 2 · lanes numbers in their order."""
        n = row.type.count
        places = (range(n // 2), range(n // 2, n)) if self.element_bytes == 4 else (range(0, n, 2), range(1, n, 2))
        return [pick(builder, row, each) for each in places]

    def together(self, builder: Builder, a: Value, b: Value) -> Value:
        """2 · lanes numbers in their order, of the two vectors."""
        lanes = a.type.count
        order = range(2 * lanes) if self.element_bytes == 4 else [lane for i in range(lanes) for lane in (i, lanes + i)]
        return pick(builder, joined(builder, a, b), order)


def _widened(builder: Builder, pairs: Value) -> list[Value]:
    """int32 pairs of bf16 -> the even ones and the odd ones as float32."""
    floats = vector(F32, pairs.type.count)
    odd = builder.and_(pairs, constant(pairs.type, -65536))
    return [builder.bitcast(each, floats) for each in (builder.shl(pairs, constant(pairs.type, 16)), odd)]


def lanes_of(builder: Builder) -> int:
    """Of a float32 vector."""
    return 16 if target_of(builder).has("avx512f") else 8


def sums_of(builder: Builder) -> int:
    """Vectors that are added up in registers; as many again hold what is multiplied."""
    return lanes_of(builder)


@intrinsic
def most_queries(typing: Any) -> Any:
    """How many queries a tile has at most."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        return constant(I64, 8 if lanes_of(builder) == 16 else 4)

    return types.int64(), emit


class Ahead(NamedTuple):
    """What is asked for while rows 0 … count are read."""

    rows: Value
    next: Value
    count: Value
    stride: Value
    far: Value

    def at(self, builder: Builder, row: Value) -> Value:
        """The address of the row that is `far` ahead of this one."""
        place = builder.add(row, self.far)
        over = builder.sub(place, self.count)
        inside = builder.add(self.rows, builder.mul(place, self.stride))
        beyond = builder.add(self.next, builder.mul(over, self.stride))
        return builder.select(builder.icmp_signed("<", over, constant(I64, 0)), inside, beyond)


def _ask(builder: Builder, address: Value, nbytes: int) -> None:
    for at in range(0, nbytes, CACHE_LINE):
        prefetch(builder, builder.add(address, constant(I64, at)))


def _scores(queries: int, pairs: Pairs) -> Callable[..., Any]:
    """out[queries, CHUNK] = spread queries · rows, float32. All are addresses; up to a vector's scores too many are written.

    Of a single query's tile each row is gone through on its own, else 16 rows' addresses would fill the registers.
    """

    def typed(typing: Any, q: Any, keys: Any, stride: Any, count: Any, dim: Any, out: Any, after: Any, far: Any) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            q, keys, stride, count, dim, out, after, far = arguments
            lanes, rows = lanes_of(builder), sums_of(builder) // queries
            size = 2 * lanes * pairs.element_bytes
            ahead, last = Ahead(keys, after, count, stride, far), builder.sub(count, constant(I64, 1))
            sums = [[variable(builder, constant(vector(F32, lanes), 0.0)) for _ in range(rows)] for _ in range(queries)]

            def add(these: range, at: Sequence[Value], read: Callable[..., list[Value]], index: Value) -> None:
                parts = [read(builder, offset(builder, each, index, size), lanes) for each in at]
                first = offset(builder, q, index, queries * 2 * lanes * 4)
                for part in range(2):
                    for i, own in enumerate(sums):
                        query = load(builder, builder.add(first, constant(I64, (2 * i + part) * lanes * 4)), vector(F32, lanes))
                        for j, both in zip(these, parts, strict=True):
                            builder.store(multiply_add(builder, query, both[part], builder.load(own[j])), own[j])

            def block(index: Value) -> None:
                first = builder.mul(index, constant(I64, rows))
                for own in sums:
                    for sum_at in own:
                        builder.store(constant(vector(F32, lanes), 0.0), sum_at)
                for these in [range(rows)] if queries > 1 else [range(j, j + 1) for j in range(rows)]:
                    places = [builder.add(first, constant(I64, j)) for j in these]
                    at = [builder.add(keys, builder.mul(_least(builder, place, last), stride)) for place in places]
                    far_at = [ahead.at(builder, place) for place in places]

                    def step(index: Value, these: range = these, at: list[Value] = at, far_at: list[Value] = far_at) -> None:
                        for place in far_at:
                            _ask(builder, offset(builder, place, index, size), size)
                        add(these, at, pairs.both, index)

                    _by_pairs(builder, dim, step, partial(add, these, at, pairs.half))
                results = totals(builder, [builder.load(sum_at) for own in sums for sum_at in own])
                for i in range(queries):
                    place = builder.add(offset(builder, out, first, 4), constant(I64, i * CHUNK * 4))
                    store(builder, pick(builder, results, range(i * rows, (i + 1) * rows)), place)

            blocks = builder.udiv(builder.add(count, constant(I64, rows - 1)), constant(I64, rows))
            repeat(builder, constant(I64, 0), blocks, block)
            return context.get_dummy_value()

        return types.void(*[LONG] * 8), emit

    return intrinsic(typed)


def _least(builder: Builder, a: Value, b: Value) -> Value:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _mix(queries: int, pairs: Pairs) -> Callable[..., Any]:
    """out[queries, dim] += Σ weight[queries, CHUNK] · row over `count` rows, in their order; sums are spread. All are addresses."""

    def typed(typing: Any, w: Any, values: Any, stride: Any, count: Any, dim: Any, out: Any, size: Any, after: Any, far: Any) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            weights, values, stride, count, dim, out, out_stride, after, far = arguments
            lanes = lanes_of(builder)
            wide = 2 * lanes
            size = wide * pairs.element_bytes
            out_at = [builder.add(out, builder.mul(constant(I64, i), out_stride)) for i in range(queries)]
            ahead = Ahead(values, after, count, stride, far)

            def strip(first: Value, last: Value, far_at: Value, read: Callable[..., list[Value]], n: int, column: Value) -> None:
                """n · wide columns from column · wide on, over rows first … last."""
                starts = [offset(builder, at, column, wide * 4) for at in out_at]
                places = [[builder.add(at, constant(I64, j * lanes * 4)) for j in range(2 * n)] for at in starts]
                sums = [[variable(builder, load(builder, place, vector(F32, lanes))) for place in row] for row in places]

                def step(index: Value) -> None:
                    along = offset(builder, builder.mul(index, stride), column, size)
                    _ask(builder, builder.add(far_at, builder.sub(along, builder.mul(first, stride))), n * size)
                    at = builder.add(values, along)
                    parts = [part for j in range(n) for part in read(builder, builder.add(at, constant(I64, j * size)), lanes)]
                    for i, row in enumerate(sums):
                        own = builder.add(offset(builder, weights, index, 4), constant(I64, i * CHUNK * 4))
                        weight = splat(builder, load(builder, own, F32), lanes)
                        for sum_at, value in zip(row, parts, strict=True):
                            builder.store(multiply_add(builder, weight, value, builder.load(sum_at)), sum_at)

                repeat(builder, first, last, step)
                for row, own_places in zip(sums, places, strict=True):
                    for sum_at, place in zip(row, own_places, strict=True):
                        store(builder, builder.load(sum_at), place)

            def block(index: Value) -> None:
                first = builder.mul(index, constant(I64, BLOCK))
                over = partial(strip, first, _least(builder, builder.add(first, constant(I64, BLOCK)), count), ahead.at(builder, first))
                column, steps = constant(I64, 0), builder.udiv(dim, constant(I64, wide))
                for n in _strips(queries, sums_of(builder)):
                    strips = builder.udiv(builder.sub(steps, column), constant(I64, n))
                    repeat(builder, constant(I64, 0), strips, partial(_strip_at, builder, partial(over, pairs.both, n), column, n))
                    column = builder.add(column, builder.mul(strips, constant(I64, n)))
                with builder.if_then(builder.icmp_signed("<", builder.mul(steps, constant(I64, wide)), dim)):
                    over(pairs.half, 1, steps)

            blocks = builder.udiv(builder.add(count, constant(I64, BLOCK - 1)), constant(I64, BLOCK))
            repeat(builder, constant(I64, 0), blocks, block)
            return context.get_dummy_value()

        return types.void(*[LONG] * 9), emit

    return intrinsic(typed)


def _strips(queries: int, sums: int) -> Sequence[int]:
    """How many pairs of vectors a strip is wide: as many as registers hold, then fewer."""
    most = min(max(sums // (2 * queries), 1), 4)
    return [n for n in (4, 2, 1) if n <= most]


def _strip_at(builder: Builder, strip: Callable[[Value], None], column: Value, n: int, index: Value) -> None:
    strip(builder.add(column, builder.mul(index, constant(I64, n))))


def _spread(pairs: Pairs) -> Callable[..., Any]:
    """float32 [dim] spread into out, query `i` of a tile of `queries`, whose parts lie side by side. Addresses."""

    def typed(typing: Any, x: Any, dim: Any, out: Any, i: Any, queries: Any) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            x, dim, out, own, queries = arguments
            lanes = lanes_of(builder)
            half = vector(F32, lanes)

            def step(read: Callable[[Value], Value], index: Value) -> None:
                row = read(offset(builder, x, index, 2 * lanes * 4))
                place = builder.add(builder.mul(index, queries), own)
                for i, part in enumerate(pairs.apart(builder, row)):
                    store(builder, part, builder.add(offset(builder, out, place, 2 * lanes * 4), constant(I64, i * lanes * 4)))

            _by_pairs(
                builder,
                dim,
                partial(step, lambda at: load(builder, at, vector(F32, 2 * lanes))),
                partial(step, lambda at: joined(builder, load(builder, at, half), constant(half, 0.0))),
            )
            return context.get_dummy_value()

        return types.void(*[LONG] * 5), emit

    return intrinsic(typed)


def _settle(pairs: Pairs) -> Callable[..., Any]:
    """out float32 [dim] = spread sums · factor, in their order. Addresses."""

    def typed(typing: Any, sums: Any, factor: Any, dim: Any, out: Any) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            sums, factor, dim, out = arguments
            lanes = lanes_of(builder)
            factors = splat(builder, factor, 2 * lanes)

            def step(kept: int, index: Value) -> None:
                at = offset(builder, sums, index, 2 * lanes * 4)
                parts = (load(builder, builder.add(at, constant(I64, place)), vector(F32, lanes)) for place in (0, lanes * 4))
                row = builder.fmul(pairs.together(builder, *parts), factors)
                store(builder, pick(builder, row, range(kept)), offset(builder, out, index, 2 * lanes * 4))

            _by_pairs(builder, dim, partial(step, 2 * lanes), partial(step, lanes))
            return context.get_dummy_value()

        return types.void(LONG, types.float32, LONG, LONG), emit

    return intrinsic(typed)


def _by_pairs(builder: Builder, dim: Value, whole: Callable[[Value], None], half: Callable[[Value], None]) -> None:
    """`whole` for every 2 · lanes of dim numbers, `half` for what may be left."""
    wide = constant(I64, 2 * lanes_of(builder))
    steps = builder.udiv(dim, wide)
    repeat(builder, constant(I64, 0), steps, whole)
    with builder.if_then(builder.icmp_signed("<", builder.mul(steps, wide), dim)):
        half(steps)


BF16, FLOAT32 = Pairs(2), Pairs(4)
score_one_bf16, score_one_float32 = _scores(1, BF16), _scores(1, FLOAT32)
score_four_bf16, score_four_float32 = _scores(4, BF16), _scores(4, FLOAT32)
score_eight_bf16, score_eight_float32 = _scores(8, BF16), _scores(8, FLOAT32)
mix_one_bf16, mix_one_float32 = _mix(1, BF16), _mix(1, FLOAT32)
mix_four_bf16, mix_four_float32 = _mix(4, BF16), _mix(4, FLOAT32)
mix_eight_bf16, mix_eight_float32 = _mix(8, BF16), _mix(8, FLOAT32)
spread_bf16, spread_float32 = _spread(BF16), _spread(FLOAT32)
settle_bf16, settle_float32 = _settle(BF16), _settle(FLOAT32)
