"""Rows of small integers in groups of 32 with a float16 scale, against int8 input in groups of 32 with a float32 scale.

The product of two groups is exact in int32; then it is scaled and added in float32.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence

from cpu_ops.kernels.ir import (
    CACHE_LINE,
    F32,
    I16,
    I64,
    Builder,
    Value,
    constant,
    halves_to_floats,
    load,
    multiply_add,
    offset,
    pick,
    prefetch,
    repeat,
    splat,
    total,
    variable,
    vector,
)
from cpu_ops.kernels.row_code import Row, RowCode
from models.bits import GROUP

HALF = GROUP // 2
AHEAD_BYTES = 1024  # asked for ahead of a row read in order: a third faster; `up` of a gathered neuron reaches into its `down`
TOGETHER = 8  # groups whose scales are decoded as one vector


class GroupRowCode(RowCode):
    group_bytes: int  # of the quants
    span: int  # groups multiplied at once
    lanes: int  # a group's product is this many int32, to be added

    @abstractmethod
    def products(self, builder: Builder, weights: Value, values: Sequence[Value], groups: int) -> list[Value]:
        """Of up to `span` groups with each input: int32 [groups · lanes], exact."""

    def dots(self, builder: Builder, row: Row, xs: Sequence[Row], k: Value) -> list[Value]:
        sums = [_Sums(builder, self.lanes) for _ in xs]

        def together(first: Value, count: int) -> None:
            self._prefetch_ahead(builder, row, first, count)
            scales = self._scales(builder, row, first, count)
            scaled = [builder.fmul(scales, load(builder, offset(builder, x.scales, first, 4), vector(F32, count))) for x in xs]
            for place in range(0, count, self.span):
                groups = min(self.span, count - place)
                group = builder.add(first, constant(I64, place))
                values = [offset(builder, x.weights, group, GROUP) for x in xs]
                products = self.products(builder, offset(builder, row.weights, group, self.group_bytes), values, groups)
                lanes = [place + lane // self.lanes for lane in range(groups * self.lanes)]
                for own, product, scale in zip(sums, products, scaled, strict=True):
                    own.add(builder, place // self.span, product, pick(builder, scale, lanes))

        for_groups(builder, k, together)
        return [own.total(builder) for own in sums]

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
                lanes = [place + lane // self.lanes for lane in range(groups * self.lanes)]
                self.add(builder, weights, [pick(builder, scale, lanes) for scale in scales], offset(builder, raw, group, 4 * GROUP))

        for_groups(builder, k, together)

    @abstractmethod
    def add(self, builder: Builder, weights: Sequence[Value], scales: Sequence[Value], raw: Value) -> None:
        """raw sums of some groups += weights · scale, row by row; scales float32 [groups · lanes]."""

    def note(self, builder: Builder, scales: Sequence[Value], raw: Value, first: Value, k: Value) -> None:
        """Adds to raw sums what depends on the groups' scales alone."""

    def plane_bytes(self, builder: Builder, k: Value) -> tuple[Value, Value]:
        groups = builder.udiv(k, constant(I64, GROUP))
        return builder.mul(groups, constant(I64, self.group_bytes)), builder.mul(groups, constant(I64, 2))

    def _prefetch_ahead(self, builder: Builder, row: Row, first: Value, count: int) -> None:
        ahead = builder.add(offset(builder, row.weights, first, self.group_bytes), constant(I64, AHEAD_BYTES))
        for line in range(count * self.group_bytes // CACHE_LINE):
            prefetch(builder, builder.add(ahead, constant(I64, line * CACHE_LINE)))

    def _scales(self, builder: Builder, row: Row, first: Value, count: int) -> Value:
        return halves_to_floats(builder, load(builder, offset(builder, row.scales, first, 2), vector(I16, count)))


class _Sums:
    """What one product has added up to so far: two chains of eight lanes, and four lanes for a last narrow product."""

    def __init__(self, builder: Builder, lanes: int) -> None:
        self._chains = [variable(builder, constant(vector(F32, 8), 0.0)) for _ in range(2)]
        self._narrow = variable(builder, constant(vector(F32, 4), 0.0))

    def add(self, builder: Builder, place: int, product: Value, scale: Value) -> None:
        at = self._chains[place % 2] if product.type.count == 8 else self._narrow
        builder.store(multiply_add(builder, builder.sitofp(product, scale.type), scale, builder.load(at)), at)

    def total(self, builder: Builder) -> Value:
        wide = builder.fadd(*(builder.load(chain) for chain in self._chains))
        return builder.fadd(total(builder, wide), total(builder, builder.load(self._narrow)))


def for_groups(builder: Builder, k: Value, body: Callable[[Value, int], None]) -> None:
    """body(first group, how many) over all groups: TOGETHER at a time, then one by one."""
    groups = builder.udiv(k, constant(I64, GROUP))
    whole = builder.udiv(groups, constant(I64, TOGETHER))
    repeat(builder, constant(I64, 0), whole, lambda index: body(builder.mul(index, constant(I64, TOGETHER)), TOGETHER))
    repeat(builder, builder.mul(whole, constant(I64, TOGETHER)), groups, lambda index: body(index, 1))
