"""Rows of small integers in groups of 32 with a float16 scale, against int8 input in groups of 32 with a float32 scale.

The product of two groups is exact in int32; then it is scaled and added in float32. Groups are taken eight at a time, and
multiplied two at a time, the first halves of both and the second halves of both: so a product has a group in each half of its
lanes, and eight scales in ORDER are spread over lanes without crossing the middle, which costs AVX2 three times as much.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cpu_ops.kernels.ir import (
    CACHE_LINE,
    F32,
    I8,
    I16,
    I32,
    I64,
    Builder,
    Value,
    constant,
    halves_to_floats,
    joined,
    load,
    multiply_add,
    offset,
    pick,
    prefetch,
    repeat,
    splat,
    store,
    total,
    variable,
    vector,
)
from cpu_ops.kernels.row_code import Row, RowCode
from models.bits import GROUP

HALF = GROUP // 2
NEAR_BYTES = 512  # ahead of a row, asked for into the first cache
TOGETHER = 8  # groups whose scales are decoded as one vector
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # of eight scales
SUMS = 4  # int32 of a group's product

# A prepared input, group by group in runs of TOGETHER: its values as they are met, what their products start from, its scales in ORDER.
STARTS_BYTES, SCALE_BYTES = 4 * SUMS, 4
PREPARED_BYTES = GROUP + STARTS_BYTES + SCALE_BYTES


class Met(NamedTuple):
    """One or two groups of an input: the values of their first and second halves, int8; int32 to add to the product."""

    halves: tuple[Value, Value]
    starts: Value


class GroupRowCode(RowCode):
    group_bytes: int  # of the quants
    span: int  # groups added to raw sums at once
    lanes: int  # raw sums of a group that lie together

    @abstractmethod
    def product(self, builder: Builder, weights: tuple[Value, Value], met: Met) -> Value:
        """int32 [4 · groups], exact."""

    @abstractmethod
    def halves(self, builder: Builder, address: Value, groups: int) -> tuple[Value, Value]:
        """The first and the second halves of one or two groups, as bytes."""

    @abstractmethod
    def starts(self, builder: Builder, halves: tuple[Value, Value]) -> Value:
        """What depends on the values alone in products with them."""

    @abstractmethod
    def add(self, builder: Builder, weights: Sequence[Value], scales: Sequence[Value], raw: Value) -> None:
        """raw sums of some groups += weights · scale, row by row; scales float32 [groups · lanes]."""

    def note(self, builder: Builder, scales: Sequence[Value], raw: Value, first: Value, k: Value) -> None:
        """Adds to raw sums what depends on the groups' scales alone."""

    def plane_bytes(self, builder: Builder, k: Value) -> tuple[Value, Value]:
        groups = builder.udiv(k, constant(I64, GROUP))
        return builder.mul(groups, constant(I64, self.group_bytes)), builder.mul(groups, constant(I64, 2))

    def prepared_bytes(self, k: int) -> int:
        return k // GROUP * PREPARED_BYTES

    def prepare(self, builder: Builder, x: Row, prepared: Value, k: Value) -> None:
        def together(first: Value, count: int) -> None:
            run = offset(builder, prepared, first, PREPARED_BYTES)
            for place, groups in _pairs(count):
                met = self._met(builder, x, builder.add(first, constant(I64, place)), groups)
                for part, half in enumerate(met.halves):
                    store(builder, half, builder.add(run, constant(I64, place * GROUP + part * HALF * groups)))
                store(builder, met.starts, builder.add(run, constant(I64, count * GROUP + place * STARTS_BYTES)))
            store(builder, _input_scales(builder, x, first, count), builder.add(run, constant(I64, count * (GROUP + STARTS_BYTES))))

        for_groups(builder, k, together)

    def dots(self, builder: Builder, row: Row, xs: Sequence[Row], k: Value) -> list[Value]:
        def meet(x: Row, first: Value, place: int, groups: int, count: int) -> Met:
            return self._met(builder, x, builder.add(first, constant(I64, place)), groups)

        return self._dots(builder, row, xs, k, meet, lambda x, first, count: _input_scales(builder, x, first, count))

    def products(self, builder: Builder, row: Row, xs: Sequence[Value], k: Value) -> list[Value]:
        def meet(x: Value, first: Value, place: int, groups: int, count: int) -> Met:
            run = offset(builder, x, first, PREPARED_BYTES)
            places = [builder.add(run, constant(I64, place * GROUP + part * HALF * groups)) for part in range(2)]
            first_half, second_half = (load(builder, at, vector(I8, HALF * groups)) for at in places)
            at = builder.add(run, constant(I64, count * GROUP + place * STARTS_BYTES))
            return Met((first_half, second_half), load(builder, at, vector(I32, SUMS * groups)))

        def scales(x: Value, first: Value, count: int) -> Value:
            at = builder.add(offset(builder, x, first, PREPARED_BYTES), constant(I64, count * (GROUP + STARTS_BYTES)))
            return load(builder, at, vector(F32, count))

        return self._dots(builder, row, xs, k, meet, scales)

    def _dots(
        self, builder: Builder, row: Row, xs: Sequence[Value], k: Value, meet: Callable[..., Met], scales: Callable[..., Value]
    ) -> list[Value]:
        sums = [_Sums(builder) for _ in xs]

        def together(first: Value, count: int) -> None:
            self._prefetch_ahead(builder, row, first, count)
            own = self._scales(builder, row, first, count)
            scaled = [builder.fmul(own, scales(x, first, count)) for x in xs]
            for place, groups in _pairs(count):
                group = builder.add(first, constant(I64, place))
                weights = self.halves(builder, offset(builder, row.weights, group, self.group_bytes), groups)
                for x, scale, sum_of in zip(xs, scaled, sums, strict=True):
                    product = self.product(builder, weights, meet(x, first, place, groups, count))
                    sum_of.add(builder, place // 2, product, pick(builder, scale, _spread(place, groups, SUMS)))

        for_groups(builder, k, together)
        return [sum_of.total(builder) for sum_of in sums]

    def axpy(self, builder: Builder, rows: Sequence[Row], factors: Sequence[Value], raw: Value, k: Value) -> None:
        def together(first: Value, count: int) -> None:
            scales = [
                builder.fmul(self._scales(builder, row, first, count), splat(builder, factor, count))
                for row, factor in zip(rows, factors, strict=True)
            ]
            self.note(builder, scales, raw, first, k)
            for place in range(0, count, self.span):
                groups = min(self.span, count - place)
                group = builder.add(first, constant(I64, place))
                weights = [offset(builder, row.weights, group, self.group_bytes) for row in rows]
                spread = [pick(builder, scale, _spread(place, groups, self.lanes)) for scale in scales]
                self.add(builder, weights, spread, offset(builder, raw, group, 4 * GROUP))

        for_groups(builder, k, together)

    def _met(self, builder: Builder, x: Row, group: Value, groups: int) -> Met:
        halves = split_groups(builder, offset(builder, x.weights, group, GROUP), groups)
        return Met(halves, self.starts(builder, halves))

    def _prefetch_ahead(self, builder: Builder, row: Row, first: Value, count: int) -> None:
        """Far ahead into the second cache, scales too: they lie in one stretch with the weights. Then into the first."""
        near = builder.add(offset(builder, row.weights, first, self.group_bytes), constant(I64, NEAR_BYTES))
        _ask_lines(builder, near, count * self.group_bytes // CACHE_LINE, level=1)
        if row.far is not None and count == TOGETHER:
            record_bytes = self.group_bytes + 2
            far = builder.add(offset(builder, row.weights, first, record_bytes), row.far)
            _ask_lines(builder, far, -(-count * record_bytes // CACHE_LINE), level=2)

    def _scales(self, builder: Builder, row: Row, first: Value, count: int) -> Value:
        bits = load(builder, offset(builder, row.scales, first, 2), vector(I16, count))
        return halves_to_floats(builder, _ordered(builder, bits))


def _ask_lines(builder: Builder, address: Value, lines: int, *, level: int) -> None:
    for line in range(lines):
        prefetch(builder, builder.add(address, constant(I64, line * CACHE_LINE)), level)


class _Sums:
    """What one product has added up to so far: two chains of eight lanes, and four lanes for groups by themselves."""

    def __init__(self, builder: Builder) -> None:
        self._chains = [variable(builder, constant(vector(F32, 2 * SUMS), 0.0)) for _ in range(2)]
        self._narrow = variable(builder, constant(vector(F32, SUMS), 0.0))

    def add(self, builder: Builder, pair: int, product: Value, scale: Value) -> None:
        at = self._chains[pair % 2] if product.type.count == 2 * SUMS else self._narrow
        builder.store(multiply_add(builder, builder.sitofp(product, scale.type), scale, builder.load(at)), at)

    def total(self, builder: Builder) -> Value:
        wide = builder.fadd(*(builder.load(chain) for chain in self._chains))
        return builder.fadd(total(builder, wide), total(builder, builder.load(self._narrow)))


def split_groups(builder: Builder, address: Value, groups: int) -> tuple[Value, Value]:
    """The first and the second halves of one or two groups of 32 bytes."""

    def half(part: int) -> Value:
        at = [builder.add(address, constant(I64, group * GROUP + part * HALF)) for group in range(groups)]
        parts = [load(builder, place, vector(I8, HALF)) for place in at]
        return parts[0] if groups == 1 else joined(builder, *parts)

    return half(0), half(1)


def nothing_to_start(halves: tuple[Value, Value]) -> Value:
    return constant(vector(I32, halves[0].type.count // 4), 0)


def for_groups(builder: Builder, k: Value, body: Callable[[Value, int], None]) -> None:
    """body(first group, how many) over all groups: TOGETHER at a time, then one by one."""
    groups = builder.udiv(k, constant(I64, GROUP))
    whole = builder.udiv(groups, constant(I64, TOGETHER))
    repeat(builder, constant(I64, 0), whole, lambda index: body(builder.mul(index, constant(I64, TOGETHER)), TOGETHER))
    repeat(builder, builder.mul(whole, constant(I64, TOGETHER)), groups, lambda index: body(index, 1))


def lane_of(place: int) -> int:
    """Where the scale of a group lies among eight in ORDER (or alone)."""
    return ORDER.index(place)


def _ordered(builder: Builder, scales: Value) -> Value:
    return pick(builder, scales, ORDER) if scales.type.count == TOGETHER else scales


def _input_scales(builder: Builder, x: Row, first: Value, count: int) -> Value:
    return _ordered(builder, load(builder, offset(builder, x.scales, first, 4), vector(F32, count)))


def _pairs(count: int) -> list[tuple[int, int]]:
    """(first, how many) of the groups multiplied at once."""
    return [(place, min(2, count - place)) for place in range(0, count, 2)]


def _spread(place: int, groups: int, lanes: int) -> list[int]:
    """The lanes of scales in ORDER, so that each group's scale comes `lanes` times."""
    return [lane_of(place + lane // lanes) for lane in range(groups * lanes)]
