"""int8 rows: the quants as they are."""

from collections.abc import Sequence

from cpu_ops.kernels.byte_dot import byte_dot, has_vnni, unsigned_dot
from cpu_ops.kernels.group_rows import GroupRowCode, Met, nothing_to_start
from cpu_ops.kernels.group_runs import Width
from cpu_ops.kernels.ir import F32, I8, I64, Builder, Value, constant, load, multiply_add, store, vector
from cpu_ops.kernels.target import target_of
from models.bits import GROUP

BIAS = 128  # makes a quant unsigned: its highest bit flipped


class Int8Code(GroupRowCode):
    name = "int8"
    group_bytes = GROUP
    sums = 8

    def rows_together(self, builder: Builder) -> tuple[int, ...]:
        return 4, 1

    def weights(self, builder: Builder, packed: Value) -> tuple[Value, ...]:
        return (builder.xor(packed, constant(packed.type, -BIAS)) if has_vnni(target_of(builder)) else packed,)

    def values(self, builder: Builder, address: Value, groups: int) -> tuple[Value, ...]:
        return (load(builder, address, vector(I8, GROUP * groups)),)

    def starts(self, builder: Builder, values: tuple[Value, ...]) -> Value:
        """−128 · values, where that is what the weights have too much."""
        zeros = nothing_to_start(values)
        if not has_vnni(target_of(builder)):
            return zeros
        return builder.sub(zeros, self.product(builder, (constant(values[0].type, -BIAS),) * len(values), Met(values, zeros)))

    def product(self, builder: Builder, weights: tuple[Value, ...], met: Met) -> Value:
        one = unsigned_dot if has_vnni(target_of(builder)) else byte_dot
        found = met.starts
        for quants, values in zip(weights, met.values, strict=True):
            found = one(builder, quants, values, found)
        return found

    def raw_lanes(self, width: Width) -> int:
        return width.lanes

    def add(self, builder: Builder, weights: Sequence[Value], scales: Sequence[Value], raw: Value) -> None:
        lanes = scales[0].type.count
        for first in range(0, GROUP, lanes):
            at = builder.add(raw, constant(I64, 4 * first))
            result = load(builder, at, vector(F32, lanes))
            for address, scale in zip(weights, scales, strict=True):
                quants = load(builder, builder.add(address, constant(I64, first)), vector(I8, lanes))
                result = multiply_add(builder, builder.sitofp(quants, scale.type), scale, result)
            store(builder, result, at)
