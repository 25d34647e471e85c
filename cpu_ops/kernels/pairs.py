"""Rows of keys and values as vectors, two for 2 · lanes numbers, and float32 rows *spread* to meet them.

bf16 is taken in pairs, as int32: the even one of a pair becomes a float by a shift, the odd one by a mask, where widening in order would
need a shuffle. So what rows meet and what they are added to lies spread: of every 2 · lanes numbers first the even ones, then the odd ones.
float32 rows are two vectors in their order. Any dim is a multiple of 16; half a pair of vectors is filled up with zeros.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import F32, I32, I64, Builder, Value, choose, constant, joined, load, offset, pick, repeat, splat, store, vector
from cpu_ops.kernels.target import target_of

WIDEST = 32  # spread rows are multiples of it, whatever the target
LONG = types.int64


class Pairs(NamedTuple):
    element_bytes: int

    def both(self, builder: Builder, address: Value, lanes: int) -> list[Value]:
        """The vectors of 2 · lanes numbers."""
        if self.element_bytes == 4:
            return [load(builder, builder.add(address, constant(I64, at)), vector(F32, lanes)) for at in (0, 4 * lanes)]
        return _widened(builder, load(builder, address, vector(I32, lanes)))

    def half(self, builder: Builder, address: Value, lanes: int) -> list[Value]:
        """The vectors of `lanes` numbers and as many zeros."""
        if self.element_bytes == 4:
            return [load(builder, address, vector(F32, lanes)), constant(vector(F32, lanes), 0.0)]
        few = load(builder, address, vector(I32, lanes // 2))
        return _widened(builder, joined(builder, few, constant(few.type, 0)))

    def apart(self, builder: Builder, row: Value) -> list[Value]:
        """The two vectors of numbers in their order."""
        n = row.type.count
        places = (range(n // 2), range(n // 2, n)) if self.element_bytes == 4 else (range(0, n, 2), range(1, n, 2))
        return [pick(builder, row, each) for each in places]

    def together(self, builder: Builder, a: Value, b: Value) -> Value:
        """The numbers of two vectors in their order."""
        lanes = a.type.count
        order = range(2 * lanes) if self.element_bytes == 4 else [lane for i in range(lanes) for lane in (i, lanes + i)]
        return pick(builder, joined(builder, a, b), order)


BF16, FLOAT32 = Pairs(2), Pairs(4)


def _widened(builder: Builder, pairs: Value) -> list[Value]:
    """int32 pairs of bf16 -> the even ones and the odd ones as float32."""
    floats = vector(F32, pairs.type.count)
    odd = builder.and_(pairs, constant(pairs.type, -65536))
    return [builder.bitcast(each, floats) for each in (builder.shl(pairs, constant(pairs.type, 16)), odd)]


def lanes_of(builder: Builder) -> int:
    """Of a float32 vector, and how many such vectors are added up in registers: as many again hold what is multiplied."""
    return 16 if target_of(builder).has("avx512f") else 8


@intrinsic
def lanes(typing: Any) -> Any:
    """`lanes_of`, for kernels."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        return constant(I64, lanes_of(builder))

    return LONG(), emit


def by_pairs(builder: Builder, dim: Value, whole: Callable[[Value], None], half: Callable[[Value], None]) -> None:
    """`whole` for every 2 · lanes of dim numbers, `half` for what may be left."""
    wide = constant(I64, 2 * lanes_of(builder))
    steps = builder.udiv(dim, wide)
    repeat(builder, constant(I64, 0), steps, whole)
    with builder.if_then(builder.icmp_signed("<", builder.mul(steps, wide), dim)):
        half(steps)


def by_element(builder: Builder, element_bytes: Value, emit: Callable[[Pairs], None]) -> None:
    """The code of a cache's elements."""
    choose(builder, element_bytes, {BF16.element_bytes: partial(emit, BF16)}, partial(emit, FLOAT32))


def emit_spread(pairs: Pairs, builder: Builder, arguments: Sequence[Value]) -> None:
    x, dim, out, own, queries = arguments
    lanes = lanes_of(builder)
    half = vector(F32, lanes)

    def step(read: Callable[[Value], Value], index: Value) -> None:
        row = read(offset(builder, x, index, 2 * lanes * 4))
        place = builder.add(builder.mul(index, queries), own)
        for i, part in enumerate(pairs.apart(builder, row)):
            store(builder, part, builder.add(offset(builder, out, place, 2 * lanes * 4), constant(I64, i * lanes * 4)))

    by_pairs(
        builder,
        dim,
        partial(step, lambda at: load(builder, at, vector(F32, 2 * lanes))),
        partial(step, lambda at: joined(builder, load(builder, at, half), constant(half, 0.0))),
    )


def emit_settle(pairs: Pairs, builder: Builder, arguments: Sequence[Value]) -> None:
    sums, factor, dim, out = arguments
    lanes = lanes_of(builder)
    factors = splat(builder, factor, 2 * lanes)

    def step(kept: int, index: Value) -> None:
        at = offset(builder, sums, index, 2 * lanes * 4)
        parts = (load(builder, builder.add(at, constant(I64, place)), vector(F32, lanes)) for place in (0, lanes * 4))
        row = builder.fmul(pairs.together(builder, *parts), factors)
        store(builder, pick(builder, row, range(kept)), offset(builder, out, index, 2 * lanes * 4))

    by_pairs(builder, dim, partial(step, 2 * lanes), partial(step, lanes))


@intrinsic
def spread(typing: Any, element_bytes: Any, x: Any, dim: Any, out: Any, i: Any, queries: Any) -> Any:
    """float32 [dim] spread into `out`, as query `i` of a tile of `queries`, whose parts lie side by side. Addresses."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        by_element(builder, arguments[0], lambda pairs: emit_spread(pairs, builder, arguments[1:]))
        return context.get_dummy_value()

    return types.void(*[LONG] * 6), emit


@intrinsic
def settle(typing: Any, element_bytes: Any, sums: Any, factor: Any, dim: Any, out: Any) -> Any:
    """out float32 [dim] = spread sums · factor, in their order. Addresses."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        by_element(builder, arguments[0], lambda pairs: emit_settle(pairs, builder, arguments[1:]))
        return context.get_dummy_value()

    return types.void(LONG, LONG, types.float32, LONG, LONG), emit
