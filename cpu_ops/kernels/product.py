"""The naked loops of a matrix product of many tokens: tile by tile of rows, each unpacked once and met by every token."""

from typing import Any

import numpy as np
from numba import types

from cpu_ops.kernels.call import call_one
from cpu_ops.kernels.compile import inner, intrinsic, kernel
from cpu_ops.kernels.ir import CACHE_LINE, I8, I16, I32, I64, Builder, Value, constant, load, pairs_added, store, vector
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import INPUT, address_of, block_at, floats_at, ints_at, rows_at, scales_of, weights_of
from cpu_ops.kernels.tile_layout import DEPTH, GROUP_ROOM, PREPARED_BYTES, SCALES, STARTS, TILE, TILE_ROWS
from models.bits import GROUP

Floats = np.ndarray[Any, np.dtype[np.float32]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

PARTS = 48

# The vectors of a call, how many, where they are prepared (see `prepared_room`), and the functions of the rows' format.
MEETING = np.dtype([("x", INPUT)] + [(name, np.int64) for name in ("tokens", "prepared", "unpack", "multiply", "listed", "bias")])
# A product: the address of the rows' block, and out float32 [tokens, n].
PRODUCT = np.dtype([("meeting", MEETING), ("rows", np.int64), ("out", np.int64)])
tile_at, product_at = block_at(TILE), block_at(PRODUCT)
TILE_LONGS = len(TILE.names or ())


@intrinsic
def _move_group(typing: Any, values: Any, there: Any) -> Any:
    """Copies the 32 int8 at an address to another, and gives their sum."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        group = load(builder, arguments[0], vector(I8, GROUP))
        store(builder, group, arguments[1])
        wide = builder.sext(group, vector(I16, GROUP))
        while wide.type.count > 1:
            wide = pairs_added(builder, wide)
        return builder.sext(builder.extract_element(wide, constant(I32, 0)), I64)

    return types.int64(types.int64, types.int64), emit


def prepared_room(tokens: int, k: int) -> int:
    """Bytes of prepared tokens: [k / (DEPTH · GROUP), tokens, PREPARED_BYTES]."""
    return tokens * -(-k // (DEPTH * GROUP)) * PREPARED_BYTES


@inner
def prepare_token(meeting: Any, token: int, groups: int) -> None:
    """Lays a token out as tiles meet it."""
    x = meeting.x
    scales = floats_at(x.scales + token * x.scales_stride, groups)
    for group in range(groups):
        there = meeting.prepared + (group // DEPTH * meeting.tokens + token) * PREPARED_BYTES
        place = group % DEPTH
        total = _move_group(x.values + token * x.values_stride + group * GROUP, there + place * GROUP)
        ints_at(there + STARTS, DEPTH)[place] = -total * meeting.bias
        floats_at(there + SCALES, DEPTH)[place] = scales[group]


@inner
def lines(nbytes: int) -> Any:
    """uint8 [at least nbytes], and the address in it at which a cache line begins: vectors of 64 bytes then cross none."""
    memory = np.empty(nbytes + CACHE_LINE, np.uint8)
    return memory, (address_of(memory) + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE


@inner
def room_for(tokens: int) -> Any:
    """What `multiply_tile` works in: the TILE block and addresses; memory for unpacked weights, their scales, sums [tokens, TILE_ROWS]."""
    memory, address = lines(DEPTH * GROUP_ROOM + 4 * TILE_ROWS * (DEPTH + tokens))
    return np.empty(TILE_LONGS + 4 * TILE_ROWS, np.int64), memory, address


@inner
def multiply_tile(meeting: Any, rows: Any, which: Indices, first: int, room: Any) -> Any:
    """Products [tokens, TILE_ROWS] of rows which[first : first + TILE_ROWS] with every token; past the end, of the last again."""
    words, _memory, weights = room
    scales = weights + DEPTH * GROUP_ROOM
    sums = floats_at(scales + 4 * DEPTH * TILE_ROWS, meeting.tokens * TILE_ROWS)
    last = len(which) - 1
    chosen = words[TILE_LONGS:]
    for place in range(2 * TILE_ROWS):
        row = which[min(first + place, last)]
        chosen[2 * place], chosen[2 * place + 1] = weights_of(rows, row), scales_of(rows, row)
    sums[:] = 0
    tile = tile_at(address_of(words))
    tile.chosen, tile.weights, tile.scales = address_of(chosen), weights, scales
    tile.tokens, tile.sums = meeting.tokens, address_of(sums)
    groups = rows.k // GROUP
    for start in range(0, groups, DEPTH):
        tile.first, tile.groups = start, min(DEPTH, groups - start)
        tile.x = meeting.prepared + start // DEPTH * meeting.tokens * PREPARED_BYTES
        call_one(meeting.unpack, address_of(words))
        call_one(meeting.multiply, address_of(words))
    return sums


@inner
def _prepare_part(address: int, token: int) -> None:
    call = product_at(address)
    prepare_token(call.meeting, token, rows_at(call.rows).k // GROUP)


@inner
def _product_part(address: int, part: int) -> None:
    """The part's share of the tiles."""
    call = product_at(address)
    rows, tokens = rows_at(call.rows), call.meeting.tokens
    tiles = (rows.n + TILE_ROWS - 1) // TILE_ROWS
    room, out = room_for(tokens), floats_at(call.out, tokens * rows.n)
    first, last = part * tiles // PARTS * TILE_ROWS, min((part + 1) * tiles // PARTS * TILE_ROWS, rows.n)
    which = np.arange(first, last)
    for begin in range(0, last - first, TILE_ROWS):
        sums = multiply_tile(call.meeting, rows, which, begin, room)
        for token in range(tokens):
            for lane in range(min(TILE_ROWS, last - first - begin)):
                out[token * rows.n + first + begin + lane] = sums[token * TILE_ROWS + lane]


@kernel
def product(address: int) -> None:
    """Fills `out` and `prepared` of the PRODUCT block at an address."""
    in_parallel(_prepare_part, address, product_at(address).meeting.tokens)
    in_parallel(_product_part, address, PARTS)
