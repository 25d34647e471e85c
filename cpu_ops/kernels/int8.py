"""int8 rows: the quants as they are."""

from collections.abc import Sequence

from cpu_ops.kernels.byte_dot import byte_dot
from cpu_ops.kernels.group_rows import GroupRowCode, Met, nothing_to_start, split_groups
from cpu_ops.kernels.ir import F32, I8, I64, Builder, Value, constant, load, multiply_add, store, vector
from models.bits import GROUP


class Int8Code(GroupRowCode):
    name = "int8"
    group_bytes = GROUP
    span = 1
    lanes = 8
    together = 4

    def halves(self, builder: Builder, address: Value, groups: int) -> tuple[Value, Value]:
        return split_groups(builder, address, groups)

    def starts(self, builder: Builder, halves: tuple[Value, Value]) -> Value:
        return nothing_to_start(halves)

    def product(self, builder: Builder, weights: tuple[Value, Value], met: Met) -> Value:
        sums = nothing_to_start(met.halves)
        for quants, values in zip(weights, met.halves, strict=True):
            sums = byte_dot(builder, quants, values, sums)
        return sums

    def add(self, builder: Builder, weights: Sequence[Value], scales: Sequence[Value], raw: Value) -> None:
        for first in range(0, GROUP, self.lanes):
            at = builder.add(raw, constant(I64, 4 * first))
            result = load(builder, at, vector(F32, self.lanes))
            for address, scale in zip(weights, scales, strict=True):
                quants = load(builder, builder.add(address, constant(I64, first)), vector(I8, self.lanes))
                result = multiply_add(builder, builder.sitofp(quants, scale.type), scale, result)
            store(builder, result, at)
