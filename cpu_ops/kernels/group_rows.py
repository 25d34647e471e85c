"""Rows of small integers in groups of 32 with a float16 scale, against int8 input in groups of 32 with a float32 scale.

The product of two groups is exact in int32; then it is scaled and added in float32. Groups are taken in runs whose scales are decoded
as one vector, and multiplied as many at a time as a vector holds; what is left over at the end of a row comes in shorter runs.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cpu_ops.kernels.byte_dot import has_wide_bytes
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
    totals,
    variable,
    vector,
)
from cpu_ops.kernels.row_code import Row, RowCode
from cpu_ops.kernels.target import target_of
from models.bits import GROUP

HALF = GROUP // 2
FAR_LEVEL = 1
SCALE_BYTES = 2


class Width(NamedTuple):
    """How many 32-bit lanes the target's vectors have, and how long runs are, in groups, longest first.

    The scales of the longest run are in `order`.
    """

    lanes: int
    runs: tuple[int, ...]
    order: tuple[int, ...]

    def lane_of(self, place: int, count: int) -> int:
        """Where the scale of a group lies among those of its run."""
        return self.order.index(place) if count == len(self.order) else place


WIDE = Width(16, (16, 4, 1), tuple(range(16)))
# Two groups multiplied at once have their scales in different halves of the vector: crossing the middle costs AVX2 three times as much.
NARROW = Width(8, (8, 1), (0, 2, 4, 6, 1, 3, 5, 7))


def width_of(builder: Builder) -> Width:
    return WIDE if has_wide_bytes(target_of(builder)) else NARROW


class Met(NamedTuple):
    """Some groups of an input: values int8 as the weights' parts meet them, and int32 to add to the product."""

    values: tuple[Value, ...]
    starts: Value


class GroupRowCode(RowCode):
    group_bytes: int  # of the quants
    sums: int  # int32 of a group's product

    @abstractmethod
    def weights(self, builder: Builder, address: Value, groups: int) -> tuple[Value, ...]:
        """Some groups as bytes, in parts of 4 · sums · groups."""

    @abstractmethod
    def values(self, builder: Builder, address: Value, groups: int) -> tuple[Value, ...]:
        """Some groups of an input in the same parts."""

    @abstractmethod
    def starts(self, builder: Builder, values: tuple[Value, ...]) -> Value:
        """What depends on the values alone in products with them: int32 [sums · groups]."""

    @abstractmethod
    def product(self, builder: Builder, weights: tuple[Value, ...], met: Met) -> Value:
        """int32 [sums · groups], exact."""

    @abstractmethod
    def raw_lanes(self, width: Width) -> int:
        """Raw sums of a group that lie together."""

    @abstractmethod
    def add(self, builder: Builder, weights: Sequence[Value], scales: Sequence[Value], raw: Value) -> None:
        """raw sums of some groups += weights · scale, row by row; scales float32 [groups · raw_lanes]."""

    def note(self, builder: Builder, scales: Sequence[Value], raw: Value, first: Value, k: Value) -> None:
        """Adds to raw sums what depends on the groups' scales alone."""

    def plane_bytes(self, builder: Builder, k: Value) -> tuple[Value, Value]:
        groups = builder.udiv(k, constant(I64, GROUP))
        return builder.mul(groups, constant(I64, self.group_bytes)), builder.mul(groups, constant(I64, SCALE_BYTES))

    @property
    def _met_bytes(self) -> int:
        """Of a prepared group: its values, what its product starts from, its scale."""
        return GROUP + 4 * self.sums + 4

    def prepared_bytes(self, k: int) -> int:
        return k // GROUP * self._met_bytes

    def prepare(self, builder: Builder, x: Row, prepared: Value, k: Value) -> None:
        """Run by run: the values of all its groups as they are met, then the starts, then the scales in the run's order."""

        def run(first: Value, count: int) -> None:
            there = offset(builder, prepared, first, self._met_bytes)
            for place, groups in _shares(count, width_of(builder).lanes // self.sums):
                values = self.values(builder, offset(builder, x.weights, builder.add(first, constant(I64, place)), GROUP), groups)
                for part, some in enumerate(values):
                    store(builder, some, _after(builder, there, place * GROUP + part * some.type.count))
                store(builder, self.starts(builder, values), _after(builder, there, count * GROUP + 4 * self.sums * place))
            scales = load(builder, offset(builder, x.scales, first, 4), vector(F32, count))
            store(builder, _ordered(builder, scales), _after(builder, there, count * (GROUP + 4 * self.sums)))

        for_runs(builder, k, run)

    def products(self, builder: Builder, rows: Sequence[Row], xs: Sequence[Value], k: Value) -> list[list[Value]]:
        width = width_of(builder)
        sums = [[_Sums(builder, width.lanes, self.sums) for _ in xs] for _ in rows]

        def run(first: Value, count: int) -> None:
            runs = [offset(builder, x, first, self._met_bytes) for x in xs]
            for row in rows:
                self._ask_far(builder, row, first, count)
            own = [self._scales(builder, row, first, count) for row in rows]
            given = [load(builder, _after(builder, at, count * (GROUP + 4 * self.sums)), own[0].type) for at in runs]
            scaled = [[builder.fmul(its, x) for x in given] for its in own]
            for place, groups in _shares(count, width.lanes // self.sums):
                group = builder.add(first, constant(I64, place))
                met = [self._met(builder, at, place, groups, count) for at in runs]
                spread = _spread(width, place, groups, count, self.sums)
                for row, scales, its in zip(rows, scaled, sums, strict=True):
                    weights = self.weights(builder, offset(builder, row.weights, group, self.group_bytes), groups)
                    for x, scale, sum_of in zip(met, scales, its, strict=True):
                        sum_of.add(builder, place // groups, self.product(builder, weights, x), pick(builder, scale, spread))

        for_runs(builder, k, run)
        found = _totals(builder, [sum_of for its in sums for sum_of in its])
        return [found[first : first + len(xs)] for first in range(0, len(found), len(xs))]

    def _met(self, builder: Builder, run: Value, place: int, groups: int, count: int) -> Met:
        part_bytes = 4 * self.sums * groups
        places = range(place * GROUP, (place + groups) * GROUP, part_bytes)
        values = tuple(load(builder, _after(builder, run, at), vector(I8, part_bytes)) for at in places)
        starts = load(builder, _after(builder, run, count * GROUP + 4 * self.sums * place), vector(I32, self.sums * groups))
        return Met(values, starts)

    def axpy(self, builder: Builder, rows: Sequence[Row], factors: Sequence[Value], raw: Value, k: Value) -> None:
        width = width_of(builder)
        lanes = self.raw_lanes(width)

        def run(first: Value, count: int) -> None:
            for row in rows:
                self._ask_far(builder, row, first, count)
            scales = [
                builder.fmul(self._scales(builder, row, first, count), splat(builder, factor, count))
                for row, factor in zip(rows, factors, strict=True)
            ]
            self.note(builder, scales, raw, first, k)
            for place, groups in _shares(count, width.lanes // lanes):
                group = builder.add(first, constant(I64, place))
                weights = [offset(builder, row.weights, group, self.group_bytes) for row in rows]
                spread = [pick(builder, scale, _spread(width, place, groups, count, lanes)) for scale in scales]
                self.add(builder, weights, spread, offset(builder, raw, group, 4 * GROUP))

        for_runs(builder, k, run)

    def _ask_far(self, builder: Builder, row: Row, first: Value, count: int) -> None:
        """Scales too: they lie in one stretch with the weights."""
        if row.far is not None and count == width_of(builder).runs[0]:
            record_bytes = self.group_bytes + SCALE_BYTES
            far = builder.add(offset(builder, row.weights, first, record_bytes), row.far)
            for line in range(-(-count * record_bytes // CACHE_LINE)):
                prefetch(builder, _after(builder, far, line * CACHE_LINE), FAR_LEVEL)

    def _scales(self, builder: Builder, row: Row, first: Value, count: int) -> Value:
        bits = load(builder, offset(builder, row.scales, first, SCALE_BYTES), vector(I16, count))
        return halves_to_floats(builder, _ordered(builder, bits))


def _after(builder: Builder, address: Value, nbytes: int) -> Value:
    return builder.add(address, constant(I64, nbytes))


class _Sums:
    """What one product has added up to so far: two chains as wide as vectors, and one for groups by themselves."""

    def __init__(self, builder: Builder, lanes: int, narrow: int) -> None:
        self._lanes = lanes
        self._chains = [variable(builder, constant(vector(F32, lanes), 0.0)) for _ in range(2)]
        self._narrow = variable(builder, constant(vector(F32, narrow), 0.0))

    def add(self, builder: Builder, place: int, product: Value, scale: Value) -> None:
        at = self._chains[place % 2] if product.type.count == self._lanes else self._narrow
        builder.store(multiply_add(builder, builder.sitofp(product, scale.type), scale, builder.load(at)), at)

    def halves(self, builder: Builder) -> tuple[Value, Value]:
        """What is left to be added up lane by lane: of the chains, and of groups by themselves."""
        return builder.fadd(*(builder.load(chain) for chain in self._chains)), builder.load(self._narrow)


def _totals(builder: Builder, sums: Sequence[_Sums]) -> list[Value]:
    """Each one's sum, as many shuffles for all as for one."""
    wide, narrow = zip(*(sum_of.halves(builder) for sum_of in sums), strict=True)
    both = builder.fadd(totals(builder, wide), totals(builder, narrow))
    return [builder.extract_element(both, constant(I32, place)) for place in range(len(sums))]


def split_groups(builder: Builder, address: Value, groups: int) -> tuple[Value, Value]:
    """The first halves of some groups of 32 bytes, and the second ones."""

    def half(part: int) -> Value:
        parts = [load(builder, _after(builder, address, group * GROUP + part * HALF), vector(I8, HALF)) for group in range(groups)]
        while len(parts) > 1:
            parts = [joined(builder, a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    return half(0), half(1)


def nothing_to_start(values: tuple[Value, ...]) -> Value:
    return constant(vector(I32, values[0].type.count // 4), 0)


def for_runs(builder: Builder, k: Value, body: Callable[[Value, int], None]) -> None:
    """body(first group, how many) over all groups, in runs of the target's lengths."""
    groups, done = builder.udiv(k, constant(I64, GROUP)), constant(I64, 0)
    for count in width_of(builder).runs:
        first, size = done, constant(I64, count)
        runs = builder.udiv(builder.sub(groups, first), size)

        def run(index: Value, first: Value = first, count: int = count) -> None:
            body(builder.add(first, builder.mul(index, constant(I64, count))), count)

        repeat(builder, constant(I64, 0), runs, run)
        done = builder.add(first, builder.mul(runs, size))


def _ordered(builder: Builder, scales: Value) -> Value:
    order = width_of(builder).order
    return pick(builder, scales, order) if scales.type.count == len(order) else scales


def _shares(count: int, most: int) -> list[tuple[int, int]]:
    """(first, how many) of the groups of a run that are taken at once."""
    return [(place, min(most, count - place)) for place in range(0, count, most)]


def _spread(width: Width, place: int, groups: int, count: int, lanes: int) -> list[int]:
    """The lanes of a run's scales, so that each group's scale comes `lanes` times."""
    return [width.lane_of(place + lane // lanes, count) for lane in range(groups * lanes)]
