"""A tile of rows unpacked, once for all tokens."""

from llvmlite import ir

from cpu_ops.kernels.fields import Fields
from cpu_ops.kernels.ir import (
    CACHE_LINE,
    F32,
    I16,
    I32,
    I64,
    Builder,
    Value,
    constant,
    halves_to_floats,
    joined,
    load,
    offset,
    prefetch,
    repeat,
    store,
    vector,
)
from cpu_ops.kernels.tile_code import TileCode
from cpu_ops.kernels.tile_layout import DEPTH, GROUP_ROOM, STEP_BYTES, TILE, TILE_ROWS
from cpu_ops.kernels.transpose import WORDS, transposed

BLOCK_BYTES = 16  # of a row, that are transposed at once


def emit_unpack(code: TileCode, builder: Builder, address: Value) -> None:
    """Fills `weights` and `scales` with `groups` groups from the `first` of the chosen rows, and asks for those of the rows after them."""
    tile, lanes = Fields(builder, TILE, address), code.shape.lanes
    with builder.goto_entry_block():
        room = builder.ptrtoint(builder.alloca(ir.ArrayType(F32, lanes * DEPTH)), I64)
    for first_row in range(0, TILE_ROWS, lanes):
        weights, scales = [], []
        for row in range(first_row, first_row + lanes):
            at = builder.add(tile["chosen"], constant(I64, 16 * row))
            weights.append(offset(builder, load(builder, at, I64), tile["first"], code.group_bytes))
            scales.append(offset(builder, load(builder, builder.add(at, constant(I64, 8)), I64), tile["first"], 2))
        _unpack_weights(code, builder, tile, first_row, weights)
        _unpack_scales(builder, tile, first_row, scales, room)
    _ask_for_next(code, builder, tile)


def _unpack_weights(code: TileCode, builder: Builder, tile: Fields, first_row: int, rows: list[Value]) -> None:
    def one(group: Value) -> None:
        there = builder.add(offset(builder, tile["weights"], group, GROUP_ROOM), constant(I64, 4 * first_row))
        own = [offset(builder, row, group, code.group_bytes) for row in rows]
        packed = [each for at in range(0, code.group_bytes, BLOCK_BYTES) for each in _words(builder, own, at)]
        for step, made in enumerate(code.widened(builder, [builder.bitcast(each, code.bytes) for each in packed])):
            store(builder, made, builder.add(there, constant(I64, step * STEP_BYTES)))

    repeat(builder, constant(I64, 0), tile["groups"], one)


def _unpack_scales(builder: Builder, tile: Fields, first_row: int, rows: list[Value], room: Value) -> None:
    """Of fewer than DEPTH groups one by one: what lies behind a row need not be memory."""
    there = builder.add(tile["scales"], constant(I64, 4 * first_row))
    with builder.if_else(builder.icmp_signed("==", tile["groups"], constant(I64, DEPTH))) as (all_of_them, some):
        with all_of_them:
            _widen_and_turn(builder, rows, room, there)
        with some:
            repeat(builder, constant(I64, 0), tile["groups"], lambda group: _gather_and_widen(builder, rows, group, there))


def _widen_and_turn(builder: Builder, rows: list[Value], room: Value, there: Value) -> None:
    """DEPTH scales of each row."""
    widened = [builder.add(room, constant(I64, 4 * DEPTH * place)) for place in range(len(rows))]
    for row, at in zip(rows, widened, strict=True):
        store(builder, halves_to_floats(builder, load(builder, row, vector(I16, DEPTH))), at)
    for first in range(0, DEPTH, WORDS):
        for place, made in enumerate(_words(builder, widened, 4 * first)):
            store(builder, made, builder.add(there, constant(I64, 4 * TILE_ROWS * (first + place))))


def _gather_and_widen(builder: Builder, rows: list[Value], group: Value, there: Value) -> None:
    """One scale of each row."""
    bits = ir.Constant(vector(I16, len(rows)), ir.Undefined)
    for lane, row in enumerate(rows):
        bits = builder.insert_element(bits, load(builder, offset(builder, row, group, 2), I16), constant(I32, lane))
    store(builder, halves_to_floats(builder, bits), offset(builder, there, group, 4 * TILE_ROWS))


def _ask_for_next(code: TileCode, builder: Builder, tile: Fields) -> None:
    size = builder.mul(tile["groups"], constant(I64, code.group_bytes))

    def ask(row: Value) -> None:
        at = offset(builder, builder.add(tile["chosen"], constant(I64, 16 * TILE_ROWS)), row, 16)
        weights = offset(builder, load(builder, at, I64), tile["first"], code.group_bytes)
        lines = builder.udiv(builder.add(size, constant(I64, CACHE_LINE - 1)), constant(I64, CACHE_LINE))
        repeat(builder, constant(I64, 0), lines, lambda line: prefetch(builder, offset(builder, weights, line, CACHE_LINE)))
        prefetch(builder, offset(builder, load(builder, builder.add(at, constant(I64, 8)), I64), tile["first"], 2))

    repeat(builder, constant(I64, 0), constant(I64, TILE_ROWS), ask)


def _words(builder: Builder, rows: list[Value], at: int) -> list[Value]:
    """BLOCK_BYTES of as many rows as a vector has lanes, from byte `at` of each -> four vectors, int32 m of every row."""
    blocks = [load(builder, builder.add(row, constant(I64, at)), vector(I32, WORDS)) for row in rows]
    return transposed(builder, [_all_joined(builder, blocks[first::WORDS]) for first in range(WORDS)])


def _all_joined(builder: Builder, parts: list[Value]) -> Value:
    while len(parts) > 1:
        parts = [joined(builder, *parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0]
