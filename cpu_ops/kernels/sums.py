"""Adding up float32 memory, in vectors: written with array indices, LLVM does it one number at a time."""

from typing import Any

from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import F32, I64, Builder, Value, constant, load, offset, repeat, store, variable, vector

LANES = 16
TOGETHER = 4  # vectors kept in registers while all parts are added


def _add_columns(builder: Builder, sums: Value, part_bytes: Value, parts: Value, start: Value, lanes: int, vectors: int) -> None:
    """`vectors` vectors of columns from `start` on, of all parts."""
    at = [offset(builder, sums, builder.add(start, constant(I64, v * lanes)), 4) for v in range(vectors)]
    totals = [variable(builder, constant(vector(F32, lanes), 0.0)) for _ in at]
    for total, place in zip(totals, at, strict=True):
        builder.store(load(builder, place, vector(F32, lanes)), total)

    def one(part: Value) -> None:
        for total, place in zip(totals, at, strict=True):
            other = load(builder, builder.add(place, builder.mul(part, part_bytes)), vector(F32, lanes))
            builder.store(builder.fadd(builder.load(total), other), total)

    repeat(builder, constant(I64, 1), parts, one)
    for total, place in zip(totals, at, strict=True):
        store(builder, builder.load(total), place)


@intrinsic
def add_parts(typing: Any, sums: Any, part_bytes: Any, parts: Any, first: Any, last: Any) -> Any:
    """sums[first:last] += the same columns of parts 1, 2, …, in that order; part p lies p · part_bytes after the first, float32."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        sums, part_bytes, parts, done, last = arguments
        for lanes, vectors in ((LANES, TOGETHER), (LANES, 1), (1, 1)):
            size, begin = constant(I64, lanes * vectors), done
            steps = builder.udiv(builder.sub(last, begin), size)

            def step(index: Value, begin: Value = begin, lanes: int = lanes, vectors: int = vectors) -> None:
                start = builder.add(begin, builder.mul(index, constant(I64, lanes * vectors)))
                _add_columns(builder, sums, part_bytes, parts, start, lanes, vectors)

            repeat(builder, constant(I64, 0), steps, step)
            done = builder.add(begin, builder.mul(steps, size))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), emit
