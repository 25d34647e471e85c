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

    def dots(self, builder: Builder, row: Row, xs: Sequence[Row], k: Value) -> list[Value]:
        sums = [[variable(builder, constant(vector(F32, LANES), 0.0)) for _ in range(UNROLLED)] for _ in xs]
        rests = [variable(builder, constant(vector(F32, 1), 0.0)) for _ in xs]

        def add(chains: Sequence[Value], index: Value, lanes: int) -> None:
            weights = self._at(builder, row, index, lanes)
            for x, chain in zip(xs, chains, strict=True):
                values = load(builder, offset(builder, x.weights, index, 4), vector(F32, lanes))
                builder.store(multiply_add(builder, weights, values, builder.load(chain)), chain)

        def step(index: Value) -> None:
            first = builder.mul(index, constant(I64, STEP))
            for part in range(UNROLLED):
                add([own[part] for own in sums], builder.add(first, constant(I64, part * LANES)), LANES)

        steps = builder.udiv(k, constant(I64, STEP))
        repeat(builder, constant(I64, 0), steps, step)
        repeat(builder, builder.mul(steps, constant(I64, STEP)), k, lambda index: add(rests, index, 1))
        wholes = [builder.fadd(*(builder.load(chain) for chain in own)) for own in sums]
        return [builder.fadd(total(builder, a), total(builder, builder.load(b))) for a, b in zip(wholes, rests, strict=True)]

    def prepare(self, builder: Builder, x: Row, prepared: Value, k: Value) -> None:
        """Values are multiplied as they are."""

    def products(self, builder: Builder, row: Row, xs: Sequence[Value], k: Value) -> list[Value]:
        return self.dots(builder, row, [Row(x, x) for x in xs], k)

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
