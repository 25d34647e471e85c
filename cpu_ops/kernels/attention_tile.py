"""A tile of queries over one part of a head's positions: scores, softmax, weighted values."""

from typing import Any

import numpy as np

from cpu_ops.kernels import softmax
from cpu_ops.kernels.attention_blocks import AHEAD, CHUNK, HEADER, MOST_DIM, Part, first_seen, floats_of_partial
from cpu_ops.kernels.compile import exact_inner
from cpu_ops.kernels.key_scores import score
from cpu_ops.kernels.memory import room
from cpu_ops.kernels.pairs import lanes, spread
from cpu_ops.kernels.query_tile import MOST_QUERIES
from cpu_ops.kernels.rotation import rotate
from cpu_ops.kernels.rows import floats_at, ints_at
from cpu_ops.kernels.softmax import soften
from cpu_ops.kernels.value_sums import mix

_row_room, _queries_room = room(MOST_DIM * 4), room(MOST_QUERIES * MOST_DIM * 4)
_weights_room, _own_room = room(MOST_QUERIES * CHUNK * 4), room(CHUNK * 4)
_lows_room, _highs_room = room(MOST_QUERIES * 4), room(MOST_QUERIES * 4)


@exact_inner
def _turn_queries(
    call: Any, layer: Any, segment: Any, head: int, part: Part, first: int, tile: int, queries: int, lows: Any, highs: Any
) -> None:
    """queries[tile, …] = the tile's, turned, scaled and spread; lows, highs [tile] = which of the part's positions each sees."""
    dim, group, row = layer.dim, layer.heads // layer.kv_heads, _row_room()
    token = first // group
    own = first - token * group
    for i in range(tile):
        position, given = segment.start + token, segment.first + token
        x, angle = call.qkv + given * call.qkv_stride + (head * group + own) * dim * 4, given * dim * 2
        rotate(x, call.cos + angle, call.sin + angle, dim, np.float32(layer.scale), row)
        spread(layer.element_bytes, row, dim, queries, i, tile)
        lows[i], highs[i] = max(0, first_seen(layer, position) - part.low), min(part.high, position + 1) - part.low
        own += 1
        if own == group:
            token, own = token + 1, 0


@exact_inner
def _score(layer: Any, queries: int, tile: int, part: Part, low: int, high: int, weights: int) -> None:
    """weights = queries · keys of positions low … high, from a multiple of GROUP on."""
    first, row, dim = low // softmax.GROUP * softmax.GROUP, layer.row_stride, layer.dim
    keys, n, out, after = part.keys + first * row, high - first, weights + (first - part.low) * tile * 4, part.values + low * row
    far = min(AHEAD // row, n)
    score(tile, layer.element_bytes, queries, keys, row, n, dim, out, after, far)


@exact_inner
def _mix(layer: Any, weights: int, tile: int, part: Part, low: int, high: int, out: int, stride: int) -> None:
    """out[tile, dim] += weights · values of positions low … high of the part; `stride` in bytes."""
    row, n = layer.row_stride, high - low
    values, far = part.values + (part.low + low) * row, min(AHEAD // row, n)
    mix(tile, layer.element_bytes, weights, low, values, row, n, layer.dim, out, stride, part.next, far)


@exact_inner
def _mix_each(layer: Any, weights: int, tile: int, part: Part, lows: Any, highs: Any, low: int, high: int, out: int, stride: int) -> None:
    """`_mix` of positions low … high of the part, query by query, as far as each sees them."""
    own, rows = _own_room(), lanes() // tile
    its, all_ = floats_at(own, CHUNK), floats_at(weights, CHUNK * tile)
    for query in range(tile):
        first, last = max(low, lows[query]), min(high, highs[query])
        if first < last:
            for position in range(first, last):
                its[position] = all_[position // rows * rows * tile + query * rows + position % rows]
            _mix(layer, own, 1, part, first, last, out + query * stride, stride)


@exact_inner
def attend_tile(call: Any, layer: Any, segment: Any, head: int, part: Part, first: int, tile: int, partial: int) -> None:
    """Queries first … first + tile of the group's [tokens · group] over one part; `partial` is where the first one's sum goes."""
    partial_bytes = floats_of_partial(layer.dim) * 4
    queries, weights, lows_at, highs_at = _queries_room(), _weights_room(), _lows_room(), _highs_room()
    lows, highs = ints_at(lows_at, tile), ints_at(highs_at, tile)
    _turn_queries(call, layer, segment, head, part, first, tile, queries, lows, highs)
    low, high = lows[0], highs[0]
    for i in range(1, tile):
        low, high = min(low, lows[i]), max(high, highs[i])
    if low >= high:
        return
    _score(layer, queries, tile, part, part.low + low, part.low + high, weights)
    soften(tile, weights, low, high, lows_at, highs_at, partial, partial_bytes)
    out = partial + HEADER * 4
    for i in range(tile):
        floats_at(out + i * partial_bytes, partial_bytes // 4 - HEADER)[:] = 0
    _mix_all(layer, weights, tile, part, lows, highs, out, partial_bytes)


@exact_inner
def _mix_all(layer: Any, weights: int, tile: int, part: Part, lows: Any, highs: Any, out: int, stride: int) -> None:
    """out[tile, dim] += weights · the values that each query sees: positions lows[i] … highs[i] of the part.

    Those that all of them see are mixed together; those before and after, query by query.
    """
    low, high, shared_low, shared_high = lows[0], highs[0], lows[0], highs[0]
    for i in range(1, tile):
        low, high, shared_low, shared_high = min(low, lows[i]), max(high, highs[i]), max(shared_low, lows[i]), min(shared_high, highs[i])
    if shared_low >= shared_high:
        shared_low = shared_high = high
    if low < shared_low:
        _mix_each(layer, weights, tile, part, lows, highs, low, shared_low, out, stride)
    if shared_low < shared_high:
        _mix(layer, weights, tile, part, shared_low, shared_high, out, stride)
    if shared_high < high:
        _mix_each(layer, weights, tile, part, lows, highs, shared_high, high, out, stride)
