"""The naked loops of a matrix product of many tokens: tile by tile of rows, each unpacked once and met by every token."""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import inner, intrinsic, kernel
from cpu_ops.kernels.ir import I64, Builder, Value, pointer
from cpu_ops.kernels.rows import INPUT, address_of, block_at, floats_at, rows_at, scales_of, weights_of
from cpu_ops.kernels.tile_code import GROUP_ROOM, TILE, TILE_ROWS
from models.bits import GROUP

Floats = np.ndarray[Any, np.dtype[np.float32]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

DEPTH = 16  # groups of a tile unpacked at once: 8 KiB, which stay in the first cache beside four tokens' input
PARTS = 48

# The vectors of a call, how many, int32 [tokens, groups] to take from products, and the functions of the rows' format.
MEETING = np.dtype([("x", INPUT)] + [(name, np.int64) for name in ("tokens", "excess", "unpack", "multiply", "bias")])
# A product: the address of the rows' block, and out float32 [tokens, n].
PRODUCT = np.dtype([("meeting", MEETING), ("rows", np.int64), ("out", np.int64)])
tile_at, product_at = block_at(TILE), block_at(PRODUCT)


@intrinsic
def _run(typing: Any, function: Any, address: Any) -> Any:
    """Calls the function at an address with an address."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        builder.call(pointer(builder, arguments[0], ir.FunctionType(ir.VoidType(), [I64])), [arguments[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def _bytes_at(typing: Any, address: Any, count: Any) -> Any:
    """int8 [count] over the memory at an address."""
    kind = types.Array(types.int8, 1, "C")

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        data = builder.inttoptr(arguments[0], context.get_data_type(types.int8).as_pointer())
        array = context.make_array(kind)(context, builder)
        context.populate_array(
            array, data=data, shape=[arguments[1]], strides=[ir.Constant(I64, 1)], itemsize=ir.Constant(I64, 1), meminfo=None
        )
        return array._getvalue()

    return kind(types.int64, types.int64), emit


@inner
def measure_excess(meeting: Any, token: int, excess: Any) -> None:
    """excess[g] = bias · the sum of the token's group g."""
    values = _bytes_at(meeting.x.values + token * meeting.x.values_stride, len(excess) * GROUP)
    for group in range(len(excess)):
        total = np.int32(0)
        for place in range(group * GROUP, (group + 1) * GROUP):
            total += np.int32(values[place])
        excess[group] = total * np.int32(meeting.bias)


@inner
def room_for(tokens: int) -> Any:
    """What `multiply_tile` works in: the TILE block and addresses, unpacked weights, their scales, and sums [tokens, TILE_ROWS]."""
    words = np.empty(13 + 4 * TILE_ROWS, np.int64)
    return words, np.empty(DEPTH * GROUP_ROOM, np.int8), np.empty(DEPTH * TILE_ROWS, np.float32), np.empty(tokens * TILE_ROWS, np.float32)


@inner
def multiply_tile(meeting: Any, rows: Any, which: Indices, first: int, room: Any) -> Floats:
    """Products [tokens, TILE_ROWS] of rows which[first : first + TILE_ROWS] with every token; past the end, of the last again."""
    words, weights, scales, sums = room
    last = len(which) - 1
    chosen = words[13:]
    for place in range(2 * TILE_ROWS):
        row = which[min(first + place, last)]
        chosen[2 * place], chosen[2 * place + 1] = weights_of(rows, row), scales_of(rows, row)
    sums[:] = 0
    tile = tile_at(address_of(words))
    tile.chosen, tile.weights, tile.scales = address_of(chosen), address_of(weights), address_of(scales)
    tile.tokens, tile.sums = meeting.tokens, address_of(sums)
    tile.x_stride, tile.x_scales_stride = meeting.x.values_stride, meeting.x.scales_stride
    groups = rows.k // GROUP
    tile.excess_stride = 4 * groups
    for start in range(0, groups, DEPTH):
        tile.first, tile.groups = start, min(DEPTH, groups - start)
        tile.x, tile.x_scales = meeting.x.values + start * GROUP, meeting.x.scales + 4 * start
        tile.excess = meeting.excess + 4 * start
        _run(meeting.unpack, address_of(words))
        _run(meeting.multiply, address_of(words))
    return sums


@inner
def _product_part(call: Any, first: int, last: int) -> None:
    """Tiles first … last of the rows."""
    rows, meeting = rows_at(call.rows), call.meeting
    room, which = room_for(meeting.tokens), np.arange(min(rows.n, last * TILE_ROWS))
    out = floats_at(call.out, meeting.tokens * rows.n)
    for tile in range(first, last):
        begin = tile * TILE_ROWS
        sums = multiply_tile(meeting, rows, which, begin, room)
        for token in range(meeting.tokens):
            for lane in range(min(TILE_ROWS, rows.n - begin)):
                out[token * rows.n + begin + lane] = sums[token * TILE_ROWS + lane]


@kernel
def product(address: int, excess: Any) -> None:
    """Fills `out` of the PRODUCT block at an address; `excess` int32 [tokens, groups] is the block's own."""
    call = product_at(address)
    tiles = (rows_at(call.rows).n + TILE_ROWS - 1) // TILE_ROWS
    for token in numba.prange(len(excess)):
        measure_excess(product_at(address).meeting, token, excess[token])
    for part in numba.prange(PARTS):
        _product_part(product_at(address), part * tiles // PARTS, (part + 1) * tiles // PARTS)
