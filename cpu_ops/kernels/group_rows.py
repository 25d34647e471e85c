"""Rows of small integers in groups of 32 with a float16 scale, against int8 input in groups of 32 with a float32 scale.

The product of two groups is exact in int32; then it is scaled and added in float32. Groups are taken in runs whose scales are decoded
as one vector. In the longest runs a lane is a block of 16 bytes (`transposed`), and so is its product with an input: what four blocks
of four lanes each would take four times, converting, scaling and adding, is done once. What a row has left over comes in shorter runs.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from cpu_ops.kernels.group_runs import Width as Width  # the formats' words: they are imported from here
from cpu_ops.kernels.group_runs import for_runs as for_runs
from cpu_ops.kernels.group_runs import width_of as width_of
from cpu_ops.kernels.group_shares import Share, scales_at, shares_of
from cpu_ops.kernels.group_sums import GroupSums, totals_of
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
    offset,
    pick,
    prefetch,
    splat,
    store,
    vector,
)
from cpu_ops.kernels.row_code import Ahead, Row, RowCode
from cpu_ops.kernels.transpose import WORD_BYTES, transposed
from models.bits import GROUP

HALF = GROUP // 2
FAR_LEVEL = 1
SCALE_BYTES = 2


class Met(NamedTuple):
    """Some groups of an input: values int8 as the weights' parts meet them, and int32 to add to the product."""

    values: tuple[Value, ...]
    starts: Value


class GroupRowCode(RowCode):
    group_bytes: int  # of the quants
    sums: int  # 32-bit words of a group's quants

    @abstractmethod
    def weights(self, builder: Builder, packed: Value) -> tuple[Value, ...]:
        """Quants, as many bytes as a vector holds, -> parts of as many bytes, ready to be multiplied."""

    @abstractmethod
    def values(self, builder: Builder, address: Value, groups: int) -> tuple[Value, ...]:
        """Some groups of an input in the same parts."""

    @abstractmethod
    def starts(self, builder: Builder, values: tuple[Value, ...]) -> Value:
        """What depends on the values alone in products with them: int32, as many as a part has words."""

    @abstractmethod
    def product(self, builder: Builder, weights: tuple[Value, ...], met: Met) -> Value:
        """int32, the same, exact: word by word, over up to eight parts."""

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
        """Of a prepared group, at most: its values, what its product starts from, its scale."""
        return GROUP + 4 * self.sums + 4

    def prepared_bytes(self, k: int) -> int:
        """In whole cache lines, as the longest runs are: they would else be read across two."""
        return -(-k // GROUP * self._met_bytes // CACHE_LINE) * CACHE_LINE

    def prepare(self, builder: Builder, x: Row, prepared: Value, k: Value) -> None:
        """Run by run: the values of all its groups as they are met, then the starts, then the scales in the order of the lanes."""
        width = width_of(builder)

        def run(first: Value, count: int) -> None:
            there = offset(builder, prepared, first, self._met_bytes)
            scales = load(builder, offset(builder, x.scales, first, 4), vector(F32, count))
            shares = shares_of(width, count, self.sums)
            for share in shares:
                values = self._values(builder, offset(builder, x.weights, builder.add(first, constant(I64, share.first)), GROUP), share)
                for part, some in enumerate(values):
                    store(builder, some, _after(builder, there, share.first * GROUP + part * some.type.count))
                store(builder, self.starts(builder, values), _after(builder, there, share.starts))
            store(builder, pick(builder, scales, width.met_order(count)), _after(builder, there, scales_at(shares)))

        for_runs(builder, k, run)

    def products(self, builder: Builder, rows: Sequence[Row], xs: Sequence[Value], k: Value) -> list[list[Value]]:
        width = width_of(builder)
        sums = [[GroupSums(builder, width.lanes, self.sums) for _ in xs] for _ in rows]

        def run(first: Value, count: int) -> None:
            runs, shares = [offset(builder, x, first, self._met_bytes) for x in xs], shares_of(width, count, self.sums)
            for row in rows:
                self._ask_far(builder, row, first, count)
            for row, its in zip(rows, sums, strict=True):
                scales = self._scales(builder, row, first, count, width.met_order(count))
                scaled = [builder.fmul(scales, load(builder, _after(builder, at, scales_at(shares)), scales.type)) for at in runs]
                for share in shares:
                    group = builder.add(first, constant(I64, share.first))
                    weights = self._weights(builder, offset(builder, row.weights, group, self.group_bytes), share)
                    for at, scale, sum_of in zip(runs, scaled, its, strict=True):
                        product = self.product(builder, weights, self._met(builder, at, share, weights))
                        sum_of.add(builder, product, pick(builder, scale, share.spread))

        for_runs(builder, k, run)
        found = totals_of(builder, [sum_of for its in sums for sum_of in its])
        return [found[first : first + len(xs)] for first in range(0, len(found), len(xs))]

    def _weights(self, builder: Builder, address: Value, share: Share) -> tuple[Value, ...]:
        size = share.groups * self.group_bytes // share.vectors
        packed = [load(builder, _after(builder, address, size * place), vector(I8, size)) for place in range(share.vectors)]
        return tuple(part for words in _met_as(builder, packed) for part in self.weights(builder, words))

    def _values(self, builder: Builder, address: Value, share: Share) -> tuple[Value, ...]:
        """An input's values as parts of weights meet them: whatever is done to quants as words can be done to its parts."""
        groups = share.groups // share.vectors
        some = [self.values(builder, _after(builder, address, GROUP * groups * place), groups) for place in range(share.vectors)]
        parts = [_met_as(builder, part) for part in zip(*some, strict=True)]
        return tuple(value for word in zip(*parts, strict=True) for value in word)

    def _met(self, builder: Builder, run: Value, share: Share, weights: tuple[Value, ...]) -> Met:
        part = weights[0].type
        places = range(share.first * GROUP, (share.first + share.groups) * GROUP, part.count)
        values = tuple(load(builder, _after(builder, run, at), part) for at in places)
        return Met(values, load(builder, _after(builder, run, share.starts), vector(I32, part.count // WORD_BYTES)))

    def axpy(self, builder: Builder, rows: Sequence[Row], factors: Sequence[Value], raw: Value, k: Value) -> None:
        width = width_of(builder)
        lanes, ahead = self.raw_lanes(width), self._ahead(builder, rows, k)

        def run(first: Value, count: int) -> None:
            if count == width.runs[0]:
                for _ in rows:
                    ahead.ask()
            scales = [
                builder.fmul(self._scales(builder, row, first, count, width.sums_order(count)), splat(builder, factor, count))
                for row, factor in zip(rows, factors, strict=True)
            ]
            self.note(builder, scales, raw, first, k)
            for place, groups in _taken_at_once(count, width.lanes // lanes):
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

    def _ahead(self, builder: Builder, rows: Sequence[Row], k: Value) -> Ahead:
        """A piece is what a longest run has of a row."""
        count = width_of(builder).runs[0]
        assert rows[0].listed is not None
        return Ahead(builder, rows[0].listed, builder.udiv(k, constant(I64, GROUP * count)), count * (self.group_bytes + SCALE_BYTES))

    def _scales(self, builder: Builder, row: Row, first: Value, count: int, order: Sequence[int]) -> Value:
        bits = load(builder, offset(builder, row.scales, first, SCALE_BYTES), vector(I16, count))
        return halves_to_floats(builder, pick(builder, bits, order))


def _after(builder: Builder, address: Value, nbytes: int) -> Value:
    return builder.add(address, constant(I64, nbytes))


def _met_as(builder: Builder, vectors: Sequence[Value]) -> Sequence[Value]:
    """One vector as it is; four so that a lane is a block of 16 bytes."""
    if len(vectors) == 1:
        return vectors
    words = vector(I32, vectors[0].type.count // WORD_BYTES)
    turned = transposed(builder, [builder.bitcast(each, words) for each in vectors])
    return [builder.bitcast(each, vectors[0].type) for each in turned]


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


def _taken_at_once(count: int, most: int) -> list[tuple[int, int]]:
    """(first, how many) of the groups of a run that are taken at once."""
    return [(place, min(most, count - place)) for place in range(0, count, most)]


def _spread(width: Width, place: int, groups: int, count: int, lanes: int) -> list[int]:
    """The lanes of a run's scales, so that each group's scale comes `lanes` times."""
    return [width.lane_of(place + lane // lanes, count) for lane in range(groups * lanes)]
