"""Rows of plain numbers, float32 and bf16, against float32 input. Any width."""

from abc import abstractmethod
from collections.abc import Sequence

from cpu_ops.kernels.ir import F32, I64, Builder, Value, constant, load, multiply_add, offset, repeat, splat, store, total, variable, vector
from cpu_ops.kernels.row_code import Row, RowCode

LANES = 16
UNROLLED = 2  # accumulators of a dot product
STEP = LANES * UNROLLED


class FloatRowCode(RowCode):
    weight_bytes: int

    @abstractmethod
    def weights(self, builder: Builder, address: Value, lanes: int) -> Value:
        """`lanes` weights as a float32 vector."""

    def plane_bytes(self, builder: Builder, k: Value) -> tuple[Value, Value]:
        return builder.mul(k, constant(I64, self.weight_bytes)), constant(I64, 0)

    def _at(self, builder: Builder, row: Row, index: Value, lanes: int) -> Value:
        return self.weights(builder, offset(builder, row.weights, index, self.weight_bytes), lanes)

    def dot(self, builder: Builder, row: Row, x: Row, k: Value) -> Value:
        sums = [variable(builder, constant(vector(F32, LANES), 0.0)) for _ in range(UNROLLED)]
        rest = variable(builder, constant(vector(F32, 1), 0.0))

        def add(sum_at: Value, index: Value, lanes: int) -> None:
            values = load(builder, offset(builder, x.weights, index, 4), vector(F32, lanes))
            builder.store(multiply_add(builder, self._at(builder, row, index, lanes), values, builder.load(sum_at)), sum_at)

        def step(index: Value) -> None:
            first = builder.mul(index, constant(I64, STEP))
            for part, sum_at in enumerate(sums):
                add(sum_at, builder.add(first, constant(I64, part * LANES)), LANES)

        steps = builder.udiv(k, constant(I64, STEP))
        repeat(builder, constant(I64, 0), steps, step)
        repeat(builder, builder.mul(steps, constant(I64, STEP)), k, lambda index: add(rest, index, 1))
        whole = builder.fadd(builder.load(sums[0]), builder.load(sums[1]))
        return builder.fadd(total(builder, whole), total(builder, builder.load(rest)))

    def axpy(self, builder: Builder, rows: Sequence[Row], factors: Sequence[Value], out: Value, k: Value) -> None:
        def add(index: Value, lanes: int) -> None:
            at = offset(builder, out, index, 4)
            result = load(builder, at, vector(F32, lanes))
            for row, factor in zip(rows, factors, strict=True):
                result = multiply_add(builder, self._at(builder, row, index, lanes), splat(builder, factor, lanes), result)
            store(builder, result, at)

        steps = builder.udiv(k, constant(I64, LANES))
        repeat(builder, constant(I64, 0), steps, lambda index: add(builder.mul(index, constant(I64, LANES)), LANES))
        repeat(builder, builder.mul(steps, constant(I64, LANES)), k, lambda index: add(index, 1))
