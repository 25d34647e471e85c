"""Weights with values. A tile's sums stay in registers, and a value is widened once for all queries of its tile.

Which tile a query is in changes none of its bits: values are added in the order of their positions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import F32, I64, Builder, Value, constant, load, multiply_add, offset, repeat, splat, store, variable, vector
from cpu_ops.kernels.pairs import BF16, FLOAT32, Pairs, lanes_of
from cpu_ops.kernels.stream import Stream, ask

BLOCK = 32  # positions that all strips of columns pass over in turn
LONG = types.int64


def _mix(queries: int, pairs: Pairs) -> Callable[..., Any]:
    """out[queries, dim] += Σ weight · row over `count` rows, in their order, for sums that are spread. All are addresses.

    `weights` as `key_scores` lays out a tile's, the first one's at position `start`.
    """

    def typed(
        typing: Any, w: Any, start: Any, values: Any, stride: Any, count: Any, dim: Any, out: Any, size: Any, after: Any, far: Any
    ) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            if queries > lanes_of(builder):
                return context.get_dummy_value()
            weights, start, values, stride, count, dim, out, out_stride, after, far = arguments
            lanes = lanes_of(builder)
            wide, rows = 2 * lanes, lanes // queries
            size = wide * pairs.element_bytes
            out_at = [builder.add(out, builder.mul(constant(I64, i), out_stride)) for i in range(queries)]
            stream = Stream(values, stride, count, after, far)

            def strip(first: Value, last: Value, far_at: Value, read: Callable[..., list[Value]], n: int, column: Value) -> None:
                """n · wide columns from column · wide on, over rows first … last."""
                starts = [offset(builder, at, column, wide * 4) for at in out_at]
                places = [[builder.add(at, constant(I64, j * lanes * 4)) for j in range(2 * n)] for at in starts]
                sums = [[variable(builder, load(builder, place, vector(F32, lanes))) for place in row] for row in places]

                def step(index: Value) -> None:
                    along = offset(builder, builder.mul(index, stride), column, size)
                    ask(builder, builder.add(far_at, builder.sub(along, builder.mul(first, stride))), n * size)
                    at = builder.add(values, along)
                    parts = [part for j in range(n) for part in read(builder, builder.add(at, constant(I64, j * size)), lanes)]
                    place = builder.add(start, index)
                    within = builder.and_(place, constant(I64, rows - 1))
                    its = offset(builder, offset(builder, weights, builder.sub(place, within), queries * 4), within, 4)
                    for i, row in enumerate(sums):
                        own = builder.add(its, constant(I64, i * rows * 4))
                        weight = splat(builder, load(builder, own, F32), lanes)
                        for sum_at, value in zip(row, parts, strict=True):
                            builder.store(multiply_add(builder, weight, value, builder.load(sum_at)), sum_at)

                repeat(builder, first, last, step)
                for row, own_places in zip(sums, places, strict=True):
                    for sum_at, place in zip(row, own_places, strict=True):
                        store(builder, builder.load(sum_at), place)

            def block(index: Value) -> None:
                first = builder.mul(index, constant(I64, BLOCK))
                over = partial(strip, first, _least(builder, builder.add(first, constant(I64, BLOCK)), count), stream.ahead(builder, first))
                column, steps = constant(I64, 0), builder.udiv(dim, constant(I64, wide))
                for n in _strips(queries, lanes):
                    strips = builder.udiv(builder.sub(steps, column), constant(I64, n))
                    repeat(builder, constant(I64, 0), strips, partial(_strip_at, builder, partial(over, pairs.both, n), column, n))
                    column = builder.add(column, builder.mul(strips, constant(I64, n)))
                with builder.if_then(builder.icmp_signed("<", builder.mul(steps, constant(I64, wide)), dim)):
                    over(pairs.half, 1, steps)

            blocks = builder.udiv(builder.add(count, constant(I64, BLOCK - 1)), constant(I64, BLOCK))
            repeat(builder, constant(I64, 0), blocks, block)
            return context.get_dummy_value()

        return types.void(*[LONG] * 10), emit

    return intrinsic(typed)


def _least(builder: Builder, a: Value, b: Value) -> Value:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _strips(queries: int, sums: int) -> Sequence[int]:
    """How many pairs of vectors a strip is wide: as many as registers hold, then fewer."""
    most = min(max(sums // (2 * queries), 1), 4)
    return [n for n in (4, 2, 1) if n <= most]


def _strip_at(builder: Builder, strip: Callable[[Value], None], column: Value, n: int, index: Value) -> None:
    strip(builder.add(column, builder.mul(index, constant(I64, n))))


mix_one_bf16, mix_one_float32 = _mix(1, BF16), _mix(1, FLOAT32)
mix_four_bf16, mix_four_float32 = _mix(4, BF16), _mix(4, FLOAT32)
mix_eight_bf16, mix_eight_float32 = _mix(8, BF16), _mix(8, FLOAT32)
