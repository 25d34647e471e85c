"""Attention of few tokens over the cache: keys and values are read once, for all the queries that share them.

The work is cut into units: one segment, one key/value head, one chunk of CHUNK positions. A unit writes the new keys and values
that fall into its chunk, then leaves for each of its queries the greatest score, the sum of the weights e^(score - greatest)
and the weighted sum of the values. Whoever finishes the last chunk of a head adds them all, in their order. Chunks are cut at fixed
positions, so a token's bits depend on what it attends to alone: not on the threads, not on the other tokens of the step.

Everything is an address: float32 [T, …] of the step, blocks of numbers for the layer and the segments, see `attention_blocks.py`.
"""

from typing import Any

import numpy as np

from cpu_ops.kernels.attention_blocks import (
    CHUNK,
    MOST_DIM,
    SEGMENT_BYTES,
    SERIAL_PRODUCTS,
    Part,
    call_at,
    first_seen,
    floats_of_partial,
    layer_at,
    segment_at,
    wave_at,
)
from cpu_ops.kernels.attention_merge import merge_query
from cpu_ops.kernels.attention_tile import attend_tile
from cpu_ops.kernels.compile import exact_inner, exact_kernel
from cpu_ops.kernels.counter import is_last
from cpu_ops.kernels.memory import room
from cpu_ops.kernels.query_tile import tile_of
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rotation import keep, rotate

_row_room = room(MOST_DIM * 4)


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
def _found(wave: Any, unit: int) -> tuple[int, int, int]:
    """A unit's SEGMENT, head and chunk."""
    at = wave.segments
    while segment_at(at + SEGMENT_BYTES).units_before <= unit:
        at += SEGMENT_BYTES
    segment = segment_at(at)
    own = unit - segment.units_before
    head = own // segment.chunks
    return at, head, segment.chunk + own - head * segment.chunks


@exact_inner
def _place(layer: Any, segment: Any, head: int) -> int:
    """The bytes before position 0 of a segment's slot and head."""
    place: int = segment.slot * layer.slot_stride + head * layer.head_stride
    return place


@exact_inner
def _keys_of(layer: Any, wave: Any, unit: int) -> int:
    """The address of the first key that a unit reads."""
    at, head, chunk = _found(wave, unit)
    segment = segment_at(at)
    first = max(chunk * CHUNK, first_seen(layer, segment.start))
    address: int = layer.keys + _place(layer, segment, head) + first * layer.row_stride
    return address


@exact_inner
def _attend_unit(address: int, unit: int) -> None:
    call = call_at(address)
    layer, wave = layer_at(call.layer), wave_at(call.wave)
    at, head, chunk = _found(wave, unit)
    segment, place = segment_at(at), _place(layer, segment_at(at), head)
    after = _keys_of(layer, wave, min(unit + 1, wave.units - 1))
    part = Part(layer.keys + place, layer.values + place, chunk * CHUNK, min(chunk * CHUNK + CHUNK, segment.end), after)
    _write_rows(call, layer, segment, head, part)
    n = (segment.end - segment.start) * (layer.heads // layer.kv_heads)
    partials = wave.partials + 4 * (segment.partials_before + (unit - segment.units_before) * n * floats_of_partial(layer.dim))
    first = 0
    while first < n:
        tile = tile_of(n - first)
        attend_tile(call, layer, segment, head, part, first, tile, partials)
        first += tile
    if segment.chunks == 1 or is_last(segment.done + head * 8, segment.chunks):
        for query in range(n):
            merge_query(call, layer, segment, wave.partials, head, query)


@exact_kernel
def attend(address: int) -> None:
    """The segments' tokens of the CALL at an address."""
    wave = wave_at(call_at(address).wave)
    if wave.products <= SERIAL_PRODUCTS:
        for unit in range(wave.units):
            _attend_unit(address, unit)
    else:
        in_parallel(_attend_unit, address, wave.units)
