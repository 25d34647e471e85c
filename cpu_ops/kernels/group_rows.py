"""Rows of small integers in groups of 32 with a float16 scale, against int8 input in groups of 32 with a float32 scale.

The product of two groups is exact in int32; then it is scaled and added in float32.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence

from cpu_ops.kernels.byte_dot import byte_dot
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
AHEAD_BYTES = 1024  # asked for ahead of a row read in order: a third faster; `up` of a gathered neuron reaches into its `down`
TOGETHER = 8  # groups whose scales are decoded as one vector


class GroupRowCode(RowCode):
    group_bytes: int  # of the quants

    @abstractmethod
    def quants(self, builder: Builder, address: Value) -> Value:
        """A group's integers, int8 [32]."""

    def dot(self, builder: Builder, row: Row, x: Row, k: Value) -> Value:
        sums = [variable(builder, constant(vector(F32, 8), 0.0)) for _ in range(2)]

        def together(first: Value, count: int) -> None:
            ahead = builder.add(offset(builder, row.weights, first, self.group_bytes), constant(I64, AHEAD_BYTES))
            for line in range(count * self.group_bytes // CACHE_LINE):
                prefetch(builder, builder.add(ahead, constant(I64, line * CACHE_LINE)))
            scales = self._scales(builder, row, first, count)
            scales = builder.fmul(scales, load(builder, offset(builder, x.scales, first, 4), vector(F32, count)))
            for lane in range(count):
                group = builder.add(first, constant(I64, lane))
                values = load(builder, offset(builder, x.weights, group, GROUP), vector(I8, GROUP))
                product = builder.sitofp(byte_dot(builder, self._quants(builder, row, group), values), vector(F32, 8))
                scale = pick(builder, scales, [lane] * 8)
                builder.store(multiply_add(builder, product, scale, builder.load(sums[lane % 2])), sums[lane % 2])

        _for_groups(builder, k, together)
        return total(builder, builder.fadd(builder.load(sums[0]), builder.load(sums[1])))

    def axpy(self, builder: Builder, rows: Sequence[Row], factors: Sequence[Value], out: Value, k: Value) -> None:
        def together(first: Value, count: int) -> None:
            scales = [
                builder.fmul(self._scales(builder, row, first, count), splat(builder, factor, count))
                for row, factor in zip(rows, factors, strict=True)
            ]
            for lane in range(count):
                self._add_group(builder, rows, [pick(builder, s, [lane] * HALF) for s in scales], out, first, lane)

        _for_groups(builder, k, together)

    def plane_bytes(self, builder: Builder, k: Value) -> tuple[Value, Value]:
        groups = builder.udiv(k, constant(I64, GROUP))
        return builder.mul(groups, constant(I64, self.group_bytes)), builder.mul(groups, constant(I64, 2))

    def _add_group(self, builder: Builder, rows: Sequence[Row], scales: Sequence[Value], out: Value, first: Value, lane: int) -> None:
        group = builder.add(first, constant(I64, lane))
        at = offset(builder, out, group, 4 * GROUP)
        groups = [self._quants(builder, row, group) for row in rows]
        for half in range(2):
            here = builder.add(at, constant(I64, 4 * HALF * half))
            result = load(builder, here, vector(F32, HALF))
            for quants, scale in zip(groups, scales, strict=True):
                part = builder.sext(pick(builder, quants, range(half * HALF, (half + 1) * HALF)), vector(I32, HALF))
                result = multiply_add(builder, builder.sitofp(part, vector(F32, HALF)), scale, result)
            store(builder, result, here)

    def _quants(self, builder: Builder, row: Row, group: Value) -> Value:
        return self.quants(builder, offset(builder, row.weights, group, self.group_bytes))

    def _scales(self, builder: Builder, row: Row, first: Value, count: int) -> Value:
        return halves_to_floats(builder, load(builder, offset(builder, row.scales, first, 2), vector(I16, count)))


def _for_groups(builder: Builder, k: Value, body: Callable[[Value, int], None]) -> None:
    """body(first group, how many) over all groups: TOGETHER at a time, then one by one."""
    groups = builder.udiv(k, constant(I64, GROUP))
    whole = builder.udiv(groups, constant(I64, TOGETHER))
    repeat(builder, constant(I64, 0), whole, lambda index: body(builder.mul(index, constant(I64, TOGETHER)), TOGETHER))
    repeat(builder, builder.mul(whole, constant(I64, TOGETHER)), groups, lambda index: body(index, 1))
