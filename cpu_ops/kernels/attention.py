"""Attention of few tokens over the cache: keys and values are read once, for all the queries that share them.

The work is cut into units: one segment, one key/value head, one chunk of CHUNK positions. A unit writes the new keys and values
that fall into its chunk, then leaves for each of its queries the greatest score, the sum of the weights e^(score - greatest)
and the weighted sum of the values. Whoever finishes the last chunk of a head adds them all, in their order. Chunks are cut at fixed
positions, so a token's bits depend on what it attends to alone: not on the threads, not on the other tokens of the step.

Everything is an address: float32 [T, …] of the step, blocks of numbers for the layer and the segments, see LAYER and SEGMENT.
"""

from typing import Any, NamedTuple

import numpy as np

from cpu_ops.kernels import exp, key_scores, pairs, softmax, value_sums
from cpu_ops.kernels.compile import exact_inner, exact_kernel
from cpu_ops.kernels.counter import is_last
from cpu_ops.kernels.exp import exp_all
from cpu_ops.kernels.memory import room
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rotation import keep, rotate
from cpu_ops.kernels.rows import block_at, floats_at, ints_at

CHUNK = 512  # positions: 128 KiB of keys in heads of 128, which stay in the second cache for all tiles of queries
MOST_DIM = 1024  # of a head
MOST_QUERIES = 8  # of a tile, for which a key is widened once
AHEAD = 12288  # bytes: what is asked for before it is needed
HEADER = 16  # float32 numbers before a partial sum: greatest score, sum of weights, and room up to a cache line
LANES = exp.LANES
SERIAL_PRODUCTS = 2**16  # query · key and weight · value; up to so many, one thread is done before a second has woken

# The cache of one layer (address of slot 0, head 0, position 0; strides in bytes) and the shape of its attention.
LAYER = np.dtype(
    [(name, np.int64) for name in ("heads", "kv_heads", "dim", "window", "keys", "values")]
    + [(name, np.int64) for name in ("slot_stride", "head_stride", "row_stride", "element_bytes")]
    + [("scale", np.float64)]
)
# Tokens of one slot: rows `first` … of the step at positions start … end; the chunks they see; units and float32 of partial sums before it;
# the address of int64 [kv heads], zeros, for counting.
SEGMENT = np.dtype(
    [(name, np.int64) for name in ("slot", "first", "start", "end", "chunk", "chunks", "units_before", "partials_before", "done")]
)
# What is the same in all layers of a step: the SEGMENTs, and after the last one, one with no chunks and all `units` before it;
# queries · keys in all; room for partial sums.
WAVE = np.dtype([(name, np.int64) for name in ("segments", "units", "products", "partials")])
# The LAYER, the WAVE; q, k and v of a token side by side, and the bytes to the next token's; cos and sin [T, dim/2]; out [T, heads · dim].
CALL = np.dtype([(name, np.int64) for name in ("layer", "wave", "qkv", "qkv_stride", "cos", "sin", "out")])
layer_at, segment_at, wave_at, call_at = block_at(LAYER), block_at(SEGMENT), block_at(WAVE), block_at(CALL)
SEGMENT_BYTES = SEGMENT.itemsize
_row_room, _queries_room = room(MOST_DIM * 4), room(MOST_QUERIES * MOST_DIM * 4)
_weights_room, _own_room, _shares_room = room(MOST_QUERIES * CHUNK * 4), room(CHUNK * 4), room(LANES * 4)
_lows_room, _highs_room = room(MOST_QUERIES * 4), room(MOST_QUERIES * 4)


def partial_floats(dim: int) -> int:
    """float32 numbers of one query's partial sum."""
    return HEADER + (dim + pairs.WIDEST - 1) // pairs.WIDEST * pairs.WIDEST


_partial_floats = exact_inner(partial_floats)


class Part(NamedTuple):
    """What a unit attends to: positions low … high of one head, whose position 0 is at `keys` and `values`; keys that come `next`."""

    keys: int
    values: int
    low: int
    high: int
    next: int


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
def _first_seen(layer: Any, position: int) -> int:
    return 0 if layer.window == 0 else max(0, position - layer.window + 1)


@exact_inner
def _score(layer: Any, queries: int, tile: int, part: Part, low: int, high: int, weights: int) -> None:
    """weights = queries · keys of positions low … high, from a multiple of GROUP on."""
    first, row, dim = low // softmax.GROUP * softmax.GROUP, layer.row_stride, layer.dim
    keys, n, out, after = part.keys + first * row, high - first, weights + (first - part.low) * tile * 4, part.values + low * row
    far = min(AHEAD // row, n)
    if layer.element_bytes == 2:
        if tile == 1:
            key_scores.score_one_bf16(queries, keys, row, n, dim, out, after, far)
        elif tile == 4:
            key_scores.score_four_bf16(queries, keys, row, n, dim, out, after, far)
        else:
            key_scores.score_eight_bf16(queries, keys, row, n, dim, out, after, far)
    elif tile == 1:
        key_scores.score_one_float32(queries, keys, row, n, dim, out, after, far)
    elif tile == 4:
        key_scores.score_four_float32(queries, keys, row, n, dim, out, after, far)
    else:
        key_scores.score_eight_float32(queries, keys, row, n, dim, out, after, far)


@exact_inner
def _soften(weights: int, tile: int, low: int, high: int, lows: int, highs: int, headers: int, size: int) -> None:
    """Scores of positions low … high of a part become weights; the partial sums' headers."""
    if tile == 1:
        softmax.soften_one(weights, low, high, lows, highs, headers, size)
    elif tile == 4:
        softmax.soften_four(weights, low, high, lows, highs, headers, size)
    else:
        softmax.soften_eight(weights, low, high, lows, highs, headers, size)


@exact_inner
def _mix(layer: Any, weights: int, tile: int, part: Part, low: int, high: int, out: int, size: int) -> None:
    """out[tile, dim] += weights · values of positions low … high."""
    row, dim, start = layer.row_stride, layer.dim, low - part.low
    values, n = part.values + low * row, high - low
    far = min(AHEAD // row, n)
    if layer.element_bytes == 2:
        if tile == 1:
            value_sums.mix_one_bf16(weights, start, values, row, n, dim, out, size, part.next, far)
        elif tile == 4:
            value_sums.mix_four_bf16(weights, start, values, row, n, dim, out, size, part.next, far)
        else:
            value_sums.mix_eight_bf16(weights, start, values, row, n, dim, out, size, part.next, far)
    elif tile == 1:
        value_sums.mix_one_float32(weights, start, values, row, n, dim, out, size, part.next, far)
    elif tile == 4:
        value_sums.mix_four_float32(weights, start, values, row, n, dim, out, size, part.next, far)
    else:
        value_sums.mix_eight_float32(weights, start, values, row, n, dim, out, size, part.next, far)


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
        if layer.element_bytes == 2:
            pairs.spread_bf16(row, dim, queries, i, tile)
        else:
            pairs.spread_float32(row, dim, queries, i, tile)
        lows[i], highs[i] = max(0, _first_seen(layer, position) - part.low), min(part.high, position + 1) - part.low
        own += 1
        if own == group:
            token, own = token + 1, 0


@exact_inner
def _mix_own(layer: Any, weights: int, tile: int, query: int, part: Part, low: int, high: int, out: int, size: int) -> None:
    """`_mix` for one query of a tile, and positions that not all of them see."""
    if low >= high:
        return
    own = _own_room()
    rows = pairs.lanes() // tile
    its, all_ = floats_at(own, CHUNK), floats_at(weights, CHUNK * tile)
    for position in range(low - part.low, high - part.low):
        its[position] = all_[position // rows * rows * tile + query * rows + position % rows]
    _mix(layer, own, 1, part, low, high, out, size)


@exact_inner
def _attend_tile(call: Any, layer: Any, segment: Any, head: int, part: Part, first: int, tile: int, partials: int) -> None:
    """Queries first … first + tile of the group's [tokens · group] over one part.

    The positions that all of them see are mixed together; those before and after that only some see, query by query.
    """
    size = _partial_floats(layer.dim) * 4
    queries, weights, lows_at, highs_at = _queries_room(), _weights_room(), _lows_room(), _highs_room()
    lows, highs = ints_at(lows_at, tile), ints_at(highs_at, tile)
    _turn_queries(call, layer, segment, head, part, first, tile, queries, lows, highs)
    low, high, shared_low, shared_high = lows[0], highs[0], lows[0], highs[0]
    for i in range(1, tile):
        low, high, shared_low, shared_high = min(low, lows[i]), max(high, highs[i]), max(shared_low, lows[i]), min(shared_high, highs[i])
    if low >= high:
        return
    partial = partials + first * size
    _score(layer, queries, tile, part, part.low + low, part.low + high, weights)
    _soften(weights, tile, low, high, lows_at, highs_at, partial, size)
    out = partial + HEADER * 4
    for i in range(tile):
        floats_at(out + i * size, size // 4 - HEADER)[:] = 0
    if shared_low >= shared_high:
        shared_low = shared_high = high
    if low < shared_low:
        for i in range(tile):
            _mix_own(layer, weights, tile, i, part, part.low + lows[i], part.low + min(shared_low, highs[i]), out + i * size, size)
    if shared_low < shared_high:
        _mix(layer, weights, tile, part, part.low + shared_low, part.low + shared_high, out, size)
    if shared_high < high:
        for i in range(tile):
            _mix_own(layer, weights, tile, i, part, part.low + max(shared_high, lows[i]), part.low + highs[i], out + i * size, size)


@exact_inner
def _tile_of(queries: int) -> int:
    """How many of so many queries are taken together."""
    if queries >= 8 and pairs.lanes() >= 16:
        return 8
    return 4 if queries >= 4 else 1


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
    first = max(chunk * CHUNK, _first_seen(layer, segment.start))
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
    partials = wave.partials + 4 * (segment.partials_before + (unit - segment.units_before) * n * _partial_floats(layer.dim))
    first = 0
    while first < n:
        tile = _tile_of(n - first)
        _attend_tile(call, layer, segment, head, part, first, tile, partials)
        first += tile
    if segment.chunks == 1 or is_last(segment.done + head * 8, segment.chunks):
        for query in range(n):
            _merge_query(call, layer, segment, wave.partials, head, query)


@exact_inner
def _merge_query(call: Any, layer: Any, segment: Any, partials: int, head: int, query: int) -> None:
    """out = the chunks of one query of a head's [tokens · group], added in their order."""
    dim, group, size = layer.dim, layer.heads // layer.kv_heads, _partial_floats(layer.dim)
    token = query // group
    position, row = segment.start + token, segment.first + token
    chunk, n = _first_seen(layer, position) // CHUNK, (segment.end - segment.start) * group
    first = (head * segment.chunks + chunk - segment.chunk) * n + query
    partial, weight = partials + 4 * (segment.partials_before + first * size), np.float32(0.0)
    count = position // CHUNK + 1 - chunk
    weight = floats_at(partial, HEADER)[1] if count == 1 else _add_chunks(partial, n * size * 4, count, size - HEADER)
    out = call.out + (row * layer.heads + head * group + query - token * group) * dim * 4
    factor = np.float32(1.0) / weight
    if layer.element_bytes == 2:
        pairs.settle_bf16(partial + HEADER * 4, factor, dim, out)
    else:
        pairs.settle_float32(partial + HEADER * 4, factor, dim, out)


@exact_inner
def _add_chunks(partial: int, step: int, count: int, n: int) -> Any:
    """Adds `count` partial sums float32 [n], `step` bytes from one to the next, into the first of them; gives the sum of all weights."""
    most, weight = np.float32(-np.inf), np.float32(0.0)
    for i in range(count):
        most = max(most, floats_at(partial + i * step, HEADER)[0])
    exponents = _shares_room()
    shares, sums = floats_at(exponents, LANES), floats_at(partial + HEADER * 4, n)
    for i in range(count):
        lane = i % LANES
        if lane == 0:
            for j in range(LANES):
                shares[j] = floats_at(partial + min(i + j, count - 1) * step, HEADER)[0]
            exp_all(exponents, 1, most)
        header, more, share = floats_at(partial + i * step, HEADER), floats_at(partial + i * step + HEADER * 4, n), shares[lane]
        weight += header[1] * share
        if i == 0:
            sums[:] *= share
        else:
            for column in range(n):
                sums[column] += more[column] * share
    return weight


@exact_kernel
def attend(address: int) -> None:
    """The segments' tokens of the CALL at an address."""
    wave = wave_at(call_at(address).wave)
    if wave.products <= SERIAL_PRODUCTS:
        for unit in range(wave.units):
            _attend_unit(address, unit)
    else:
        in_parallel(_attend_unit, address, wave.units)
