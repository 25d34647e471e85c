"""Rows of plain numbers, float32 and bf16, against float32 input. Any width."""

from abc import abstractmethod
from collections.abc import Sequence

from cpu_ops.kernels.ir import (
    CACHE_LINE,
    F32,
    I32,
    I64,
    Builder,
    Value,
    constant,
    load,
    multiply_add,
    offset,
    prefetch,
    repeat,
    splat,
    store,
    totals,
    variable,
    vector,
)
from cpu_ops.kernels.row_code import Ahead, Row, RowCode

LANES = 16
FAR_LEVEL = 1
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

    def products(self, builder: Builder, rows: Sequence[Row], xs: Sequence[Value], k: Value) -> list[list[Value]]:
        pairs = [(row, x) for row in rows for x in xs]
        sums = [[variable(builder, constant(vector(F32, LANES), 0.0)) for _ in range(UNROLLED)] for _ in pairs]
        rests = [variable(builder, constant(vector(F32, 1), 0.0)) for _ in pairs]

        def add(chains: Sequence[Value], index: Value, lanes: int) -> None:
            weights = [self._at(builder, row, index, lanes) for row in rows for _ in xs]
            values = [load(builder, offset(builder, x, index, 4), vector(F32, lanes)) for x in xs] * len(rows)
            for own, met, chain in zip(weights, values, chains, strict=True):
                builder.store(multiply_add(builder, own, met, builder.load(chain)), chain)

        def step(index: Value) -> None:
            first = builder.mul(index, constant(I64, STEP))
            for row in rows:
                self._ask_far(builder, row, first)
            for part in range(UNROLLED):
                add([own[part] for own in sums], builder.add(first, constant(I64, part * LANES)), LANES)

        steps = builder.udiv(k, constant(I64, STEP))
        repeat(builder, constant(I64, 0), steps, step)
        repeat(builder, builder.mul(steps, constant(I64, STEP)), k, lambda index: add(rests, index, 1))
        wholes = totals(builder, [builder.fadd(*(builder.load(chain) for chain in own)) for own in sums])
        both = builder.fadd(wholes, totals(builder, [builder.load(rest) for rest in rests]))
        found = [builder.extract_element(both, constant(I32, place)) for place in range(len(pairs))]
        return [found[first : first + len(xs)] for first in range(0, len(found), len(xs))]

    def prepare(self, builder: Builder, x: Row, prepared: Value, k: Value) -> None:
        """Values are multiplied as they are."""

    def rows_together(self, builder: Builder) -> tuple[int, ...]:
        return 4, 1

    def axpy(self, builder: Builder, rows: Sequence[Row], factors: Sequence[Value], out: Value, k: Value) -> None:
        def add(index: Value, lanes: int) -> None:
            at = offset(builder, out, index, 4)
            result = load(builder, at, vector(F32, lanes))
            for row, factor in zip(rows, factors, strict=True):
                result = multiply_add(builder, self._at(builder, row, index, lanes), splat(builder, factor, lanes), result)
            store(builder, result, at)

        steps = builder.udiv(k, constant(I64, STEP))
        assert rows[0].listed is not None
        ahead = Ahead(builder, rows[0].listed, steps, STEP * self.weight_bytes)

        def step(index: Value) -> None:
            first = builder.mul(index, constant(I64, STEP))
            for _ in rows:
                ahead.ask()
            for part in range(UNROLLED):
                add(builder.add(first, constant(I64, part * LANES)), LANES)

        repeat(builder, constant(I64, 0), steps, step)
        repeat(builder, builder.mul(steps, constant(I64, STEP)), k, lambda index: add(index, 1))

    def _ask_far(self, builder: Builder, row: Row, first: Value) -> None:
        assert row.far is not None
        far = builder.add(offset(builder, row.weights, first, self.weight_bytes), row.far)
        for line in range(0, STEP * self.weight_bytes, CACHE_LINE):
            prefetch(builder, builder.add(far, constant(I64, line)), level=FAR_LEVEL)
