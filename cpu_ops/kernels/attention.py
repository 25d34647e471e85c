"""Attention of few tokens over the cache: keys and values are read once, for all the queries that share them.

The work is cut into units: one segment, one key/value head, one chunk of CHUNK positions. A unit writes the new keys and values
that fall into its chunk, then leaves for each of its queries the greatest score, the sum of the weights e^(score - greatest)
and the weighted sum of the values. Whoever finishes the last chunk of a head adds them all, in their order. Chunks are cut at fixed
positions, so a token's bits depend on what it attends to alone: not on the threads, not on the other tokens of the step.

Everything is an address: float32 [T, …] of the step, blocks of numbers for the layer and the segments, see `attention_blocks.py`.
"""

from typing import Any

import numpy as np

from cpu_ops.kernels.attention_ahead import ask_unit
from cpu_ops.kernels.attention_blocks import (
    CHUNK,
    MOST_DIM,
    SERIAL_PRODUCTS,
    Part,
    call_at,
    floats_of_partial,
    layer_at,
    partial_floats,
    segment_at,
    wave_at,
)
from cpu_ops.kernels.attention_merge import merge_query, write_query
from cpu_ops.kernels.attention_tile import attend_tile
from cpu_ops.kernels.attention_unit import first_position, unit_of
from cpu_ops.kernels.compile import exact_inner, exact_kernel
from cpu_ops.kernels.counter import is_last
from cpu_ops.kernels.memory import room
from cpu_ops.kernels.query_tile import MOST_QUERIES, tile_of
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rotation import keep, rotate

_row_room, _partials_room = room(MOST_DIM * 4), room(MOST_QUERIES * partial_floats(MOST_DIM) * 4)


@exact_inner
def _write_rows(call: Any, layer: Any, segment: Any, head: int, part: Part) -> None:
    """The new keys (turned) and values of the segment that fall into the part."""
    row = _row_room()
    key_offset, value_offset = (layer.heads + head) * layer.dim * 4, (layer.heads + layer.kv_heads + head) * layer.dim * 4
    for position in range(max(part.low, segment.start), part.high):
        token = segment.first + position - segment.start
        given, angle = call.qkv + token * call.qkv_stride, token * layer.dim * 2
        rotate(given + key_offset, call.cos + angle, call.sin + angle, layer.dim, np.float32(1.0), row)
        keep(row, layer.dim, part.keys + position * layer.row_stride, layer.element_bytes)
        keep(given + value_offset, layer.dim, part.values + position * layer.row_stride, layer.element_bytes)


@exact_inner
def _attend_unit(address: int, number: int) -> None:
    call = call_at(address)
    layer, wave = layer_at(call.layer), wave_at(call.wave)
    unit, after = unit_of(layer, wave, number), unit_of(layer, wave, min(number + 1, wave.units - 1))
    ask_unit(call, layer, unit)
    ask_unit(call, layer, after)
    segment, head, chunk = segment_at(unit.segment), unit.head, unit.chunk
    first_key = after.keys + first_position(layer, after) * layer.row_stride
    part = Part(unit.keys, unit.values, chunk * CHUNK, min(chunk * CHUNK + CHUNK, segment.end), first_key)
    _write_rows(call, layer, segment, head, part)
    n = (segment.end - segment.start) * (layer.heads // layer.kv_heads)
    if segment.chunks == 1:
        _attend_whole(call, layer, segment, head, part, n)
        return
    partials = wave.partials + 4 * (segment.partials_before + (number - segment.units_before) * n * floats_of_partial(layer.dim))
    first = 0
    while first < n:
        tile = tile_of(n - first)
        attend_tile(call, layer, segment, head, part, first, tile, partials + first * floats_of_partial(layer.dim) * 4)
        first += tile
    if is_last(segment.done + head * 8, segment.chunks):
        for query in range(n):
            merge_query(call, layer, segment, wave.partials, head, query)


@exact_inner
def _attend_whole(call: Any, layer: Any, segment: Any, head: int, part: Part, n: int) -> None:
    """A head's n queries where one chunk is all they see. Its sums lie in the thread's own memory, warm from the unit before."""
    partials, partial_bytes, first = _partials_room(), floats_of_partial(layer.dim) * 4, 0
    while first < n:
        tile = tile_of(n - first)
        attend_tile(call, layer, segment, head, part, first, tile, partials)
        for i in range(tile):
            write_query(call, layer, segment, head, first + i, partials + i * partial_bytes)
        first += tile


@exact_kernel
def attend(address: int) -> None:
    """The segments' tokens of the CALL at an address."""
    wave = wave_at(call_at(address).wave)
    if wave.products <= SERIAL_PRODUCTS:
        for unit in range(wave.units):
            _attend_unit(address, unit)
    else:
        in_parallel(_attend_unit, address, wave.units)
