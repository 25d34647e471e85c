"""A tile of unpacked rows times every token."""

from collections.abc import Sequence

from cpu_ops.kernels.fields import Fields
from cpu_ops.kernels.ir import F32, I32, I64, Builder, Value, constant, load, multiply_add, offset, repeat, splat, store, variable
from cpu_ops.kernels.tile_code import TileCode
from cpu_ops.kernels.tile_layout import GROUP_ROOM, PREPARED_BYTES, SCALES, STARTS, STEP_BYTES, STEPS, TILE, TILE_ROWS
from models.bits import GROUP


def emit_multiply(code: TileCode, builder: Builder, address: Value) -> None:
    """sums += unpacked rows · x, group after group for each token: its bits do not depend on the others."""
    tile = Fields(builder, TILE, address)
    for first_row in range(0, TILE_ROWS, code.shape.lanes * code.shape.vectors):
        done: Value = constant(I64, 0)
        for count in code.shape.together:
            blocks = builder.udiv(builder.sub(tile["tokens"], done), constant(I64, count))

            def some(block: Value, first_row: int = first_row, done: Value = done, count: int = count) -> None:
                _multiply(code, builder, tile, first_row, builder.add(done, builder.mul(block, constant(I64, count))), count)

            repeat(builder, constant(I64, 0), blocks, some)
            done = builder.add(done, builder.mul(blocks, constant(I64, count)))


def _multiply(code: TileCode, builder: Builder, tile: Fields, first_row: int, token: Value, count: int) -> None:
    """`count` tokens from `token` on with as many rows from `first_row` on as registers hold."""
    vectors, lanes = range(code.shape.vectors), code.shape.lanes
    xs = [builder.add(offset(builder, tile["x"], token, PREPARED_BYTES), constant(I64, t * PREPARED_BYTES)) for t in range(count)]
    own = builder.add(offset(builder, tile["sums"], token, 4 * TILE_ROWS), constant(I64, 4 * first_row))
    places = [[builder.add(own, constant(I64, 4 * (TILE_ROWS * t + lanes * v))) for v in vectors] for t in range(count)]
    sums = [[variable(builder, load(builder, place, code.floats)) for place in each] for each in places]
    repeat(builder, constant(I64, 0), tile["groups"], lambda group: _add_group(code, builder, tile, first_row, group, xs, sums))
    for each, own_sums in zip(places, sums, strict=True):
        for place, own_sum in zip(each, own_sums, strict=True):
            store(builder, builder.load(own_sum), place)


def _add_group(
    code: TileCode, builder: Builder, tile: Fields, first_row: int, group: Value, xs: Sequence[Value], sums: Sequence[Sequence[Value]]
) -> None:
    """A group's products, scaled, onto sums [token][vector]."""
    vectors, lanes = range(code.shape.vectors), code.shape.lanes
    at = builder.add(offset(builder, tile["scales"], group, 4 * TILE_ROWS), constant(I64, 4 * first_row))
    scales = [load(builder, builder.add(at, constant(I64, 4 * lanes * v)), code.floats) for v in vectors]
    products = _products(code, builder, tile, first_row, group, xs)
    for x, totals, own_sums in zip(xs, products, sums, strict=True):
        scale = splat(builder, load(builder, builder.add(offset(builder, x, group, 4), constant(I64, SCALES)), F32), lanes)
        for v in vectors:
            made = builder.sitofp(totals[v], code.floats)
            builder.store(multiply_add(builder, made, builder.fmul(scales[v], scale), builder.load(own_sums[v])), own_sums[v])


def _products(code: TileCode, builder: Builder, tile: Fields, first_row: int, group: Value, xs: Sequence[Value]) -> list[list[Value]]:
    """[token][vector]: sums of a group's steps."""
    vectors, lanes = range(code.shape.vectors), code.shape.lanes
    starts = [splat(builder, load(builder, builder.add(offset(builder, x, group, 4), constant(I64, STARTS)), I32), lanes) for x in xs]
    totals = [[code.begun(start) for _ in vectors] for start in starts]
    at = builder.add(offset(builder, tile["weights"], group, GROUP_ROOM), constant(I64, 4 * first_row))
    for step in range(STEPS):
        weights = [load(builder, builder.add(at, constant(I64, step * STEP_BYTES + 4 * lanes * v)), code.bytes) for v in vectors]
        for x, sums in zip(xs, totals, strict=True):
            four = load(builder, builder.add(offset(builder, x, group, GROUP), constant(I64, 4 * step)), I32)
            values = builder.bitcast(splat(builder, four, lanes), code.bytes)
            for v in vectors:
                sums[v] = code.add(builder, weights[v], values, sums[v])
    return [[code.finished(builder, each, start) for each in sums] for sums, start in zip(totals, starts, strict=True)]
