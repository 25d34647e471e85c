"""Attention of few tokens over the cache: keys and values are read once, for all the queries that share them.

The work is cut into units: one segment, one key/value head, one chunk of CHUNK positions. A unit writes the new keys and values
that fall into its chunk, then leaves for each of its queries the greatest score, the sum of the weights e^(score - greatest)
and the weighted sum of the values. A second region adds the chunks of each query in their order. Chunks are cut at fixed
positions, so a token's bits depend on what it attends to alone: not on the threads, not on the other tokens of the step.

Everything is an address: float32 [T, …] of the step, blocks of numbers for the layer and the segments, see LAYER and SEGMENT.
"""

from typing import Any, NamedTuple

import numpy as np

from cpu_ops.kernels import key_rows
from cpu_ops.kernels.compile import exact_inner, exact_kernel
from cpu_ops.kernels.exp import exp_all, greatest
from cpu_ops.kernels.memory import ask_for
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rotation import keep, rotate
from cpu_ops.kernels.rows import address_of, alive, block_at, floats_at

CHUNK = 256  # positions: 64 KiB of keys in heads of 128, which stay in the second cache for all tiles of queries
BLOCK, TILE_BLOCK = 8, 32  # positions that all strips of a head pass over in turn: few are nearly a stream, many keep sums in registers
AHEAD = 4096  # bytes: keys asked for before they are needed. A tile's rows are no stream that the hardware would see
TILE = 4  # queries for which a key is widened once
HEADER = 8  # float32 numbers before a partial sum: greatest score, sum of weights, and room up to a vector
SERIAL_PRODUCTS = 2**16  # query · key and weight · value; up to so many, one thread is done before a second has woken

# The cache of one layer (address of slot 0, head 0, position 0; strides in bytes) and the shape of its attention.
LAYER = np.dtype(
    [(name, np.int64) for name in ("heads", "kv_heads", "dim", "window", "keys", "values")]
    + [(name, np.int64) for name in ("slot_stride", "head_stride", "row_stride", "element_bytes")]
    + [("scale", np.float64)]
)
# Tokens of one slot: rows `first` … of the step at positions start … end; the chunks they see; units and float32 of partial sums before it.
SEGMENT = np.dtype([(name, np.int64) for name in ("slot", "first", "start", "end", "chunk", "chunks", "units_before", "partials_before")])

# What is the same in all layers of a step: the SEGMENTs, and after the last one, one with no chunks and all `units` before it;
# queries · keys in all; room for partial sums.
WAVE = np.dtype([(name, np.int64) for name in ("segments", "units", "products", "partials")])
# The LAYER, the WAVE; q, k and v of a token side by side, and the bytes to the next token's; cos and sin [T, dim/2]; out [T, heads · dim].
CALL = np.dtype([(name, np.int64) for name in ("layer", "wave", "qkv", "qkv_stride", "cos", "sin", "out")])
layer_at, segment_at, wave_at, call_at = block_at(LAYER), block_at(SEGMENT), block_at(WAVE), block_at(CALL)
SEGMENT_BYTES = SEGMENT.itemsize


class Part(NamedTuple):
    """What a unit attends to: positions low … high of one head, whose position 0 is at `keys` and `values`."""

    keys: int
    values: int
    low: int
    high: int


@exact_inner
def _write_rows(call: Any, layer: Any, segment: Any, head: int, part: Part) -> None:
    """The new keys (turned) and values of the segment that fall into the part."""
    row = np.empty(layer.dim, np.float32)
    key_offset, value_offset = (layer.heads + head) * layer.dim * 4, (layer.heads + layer.kv_heads + head) * layer.dim * 4
    for position in range(max(part.low, segment.start), part.high):
        token = segment.first + position - segment.start
        given, angle = call.qkv + token * call.qkv_stride, token * layer.dim * 2
        rotate(given + key_offset, call.cos + angle, call.sin + angle, layer.dim, np.float32(1.0), address_of(row))
        keep(address_of(row), layer.dim, part.keys + position * layer.row_stride, layer.element_bytes)
        keep(given + value_offset, layer.dim, part.values + position * layer.row_stride, layer.element_bytes)
    alive(row)


@exact_inner
def _first_seen(layer: Any, position: int) -> int:
    return 0 if layer.window == 0 else max(0, position - layer.window + 1)


@exact_inner
def _score(layer: Any, queries: int, count: int, part: Part, low: int, high: int, weights: int, ahead: bool) -> None:
    """weights[count, CHUNK] = queries · keys of positions low … high, from a multiple of 8 on; asks for keys when they come first."""
    size, row = layer.dim * 4, layer.row_stride
    for position in range(low // 8 * 8, high, 8 // count):
        keys, last, out = part.keys + position * row, high - 1 - position, weights + (position - part.low) * 4
        if ahead and count == TILE:
            ask_for(keys + AHEAD, (8 // count) * row)
        if count == TILE and layer.element_bytes == 2:
            key_rows.score_four_bf16(queries, size, keys, row, last, layer.dim, out, CHUNK * 4)
        elif count == TILE:
            key_rows.score_four_float32(queries, size, keys, row, last, layer.dim, out, CHUNK * 4)
        elif layer.element_bytes == 2:
            key_rows.score_one_bf16(queries, size, keys, row, last, layer.dim, out, CHUNK * 4)
        else:
            key_rows.score_one_float32(queries, size, keys, row, last, layer.dim, out, CHUNK * 4)


@exact_inner
def _soften(weights: int, low: int, high: int, partial: int) -> None:
    """weights[low:high] = e^(score - greatest); the partial sum's header. What fills up a vector counts as nothing."""
    first, last = low // 8, (high + 7) // 8
    scores, header = floats_at(weights, last * 8), floats_at(partial, HEADER)
    scores[first * 8 : low] = -np.inf
    scores[high:] = -np.inf
    header[0] = greatest(weights + first * 32, last - first)
    header[1] = exp_all(weights + first * 32, last - first, header[0])


@exact_inner
def _mix(layer: Any, weights: int, count: int, part: Part, low: int, high: int, partials: int, size: int, ahead: bool) -> None:
    """partials[count, dim] += weights · values of positions low … high."""
    block = TILE_BLOCK if count == TILE else BLOCK
    for first in range(low, high, block):
        n, at = min(block, high - first), weights + (first - part.low) * 4
        column = 0
        while column < layer.dim:
            width = 16 if count == TILE or layer.dim - column < 64 else 64
            if ahead:  # of what comes next, a share with every strip
                share = n * layer.element_bytes
                ask_for(part.values + first * layer.row_stride + AHEAD + column * share, width * share)
            values, out = part.values + first * layer.row_stride + column * layer.element_bytes, partials + column * 4
            _mix_strip(count, width, layer.element_bytes, at, values, layer.row_stride, n, out, size)
            column += width


@exact_inner
def _mix_strip(count: int, width: int, element_bytes: int, weights: int, values: int, row: int, n: int, out: int, size: int) -> None:
    """`width` columns: 16 for a whole tile, 64 or 16 for one query."""
    if count == TILE and element_bytes == 2:
        key_rows.mix_four_bf16(weights, CHUNK * 4, values, row, n, out, size)
    elif count == TILE:
        key_rows.mix_four_float32(weights, CHUNK * 4, values, row, n, out, size)
    elif width == 64 and element_bytes == 2:
        key_rows.mix_one_bf16(weights, CHUNK * 4, values, row, n, out, size)
    elif width == 64:
        key_rows.mix_one_float32(weights, CHUNK * 4, values, row, n, out, size)
    elif element_bytes == 2:
        key_rows.mix_narrow_bf16(weights, CHUNK * 4, values, row, n, out, size)
    else:
        key_rows.mix_narrow_float32(weights, CHUNK * 4, values, row, n, out, size)


@exact_inner
def _turn_queries(call: Any, layer: Any, segment: Any, head: int, part: Part, first: int, count: int, queries: int, seen: Any) -> None:
    """queries[count, dim] = the tile's, turned and scaled; seen[count, 2] = the positions of the part that each of them sees."""
    dim, group = layer.dim, layer.heads // layer.kv_heads
    for i in range(count):
        token, own = (first + i) // group, head * group + (first + i) % group
        position, row = segment.start + token, segment.first + token
        given, angle = call.qkv + row * call.qkv_stride + own * dim * 4, row * dim * 2
        rotate(given, call.cos + angle, call.sin + angle, dim, np.float32(layer.scale), queries + i * dim * 4)
        seen[i, 0], seen[i, 1] = max(part.low, _first_seen(layer, position)), min(part.high, position + 1)


@exact_inner
def _attend_tile(call: Any, layer: Any, segment: Any, head: int, part: Part, first: int, count: int, partials: int) -> None:
    """Queries first … first + count of the group's [tokens · group] over one part.

    The positions that all of them see are mixed together; those before and after that only some see, query by query.
    """
    size = (HEADER + layer.dim) * 4
    queries, weights, seen = np.empty(TILE * layer.dim, np.float32), np.empty(TILE * CHUNK, np.float32), np.empty((TILE, 2), np.int64)
    _turn_queries(call, layer, segment, head, part, first, count, address_of(queries), seen)
    low, high = seen[:count, 0].min(), seen[:count, 1].max()
    if low >= high:
        return
    _score(layer, address_of(queries), count, part, low, high, address_of(weights), first == 0)
    alive(queries)
    for i in range(count):
        floats_at(partials + (first + i) * size, HEADER + layer.dim)[:] = 0
        if seen[i, 0] < seen[i, 1]:
            _soften(address_of(weights) + i * CHUNK * 4, seen[i, 0] - part.low, seen[i, 1] - part.low, partials + (first + i) * size)
    shared_low, shared_high = seen[:count, 0].max(), seen[:count, 1].min()
    if shared_low >= shared_high:
        shared_low = shared_high = high
    for piece in range(2 * count + 1):  # before, shared, after
        i, together = (piece, 1) if piece < count else (0, count) if piece == count else (piece - count - 1, 1)
        begin, end = shared_low, shared_high
        if piece < count:
            begin, end = seen[i, 0], min(shared_low, seen[i, 1])
        elif piece > count:
            begin, end = max(shared_high, seen[i, 0]), seen[i, 1]
        out = partials + (first + i) * size + HEADER * 4
        _mix(layer, address_of(weights) + i * CHUNK * 4, together, part, begin, end, out, size, first == 0)
    alive(weights)


@exact_inner
def _attend_unit(address: int, unit: int) -> None:
    call = call_at(address)
    layer, wave = layer_at(call.layer), wave_at(call.wave)
    at = wave.segments
    while segment_at(at + SEGMENT_BYTES).units_before <= unit:
        at += SEGMENT_BYTES
    segment = segment_at(at)
    head, chunk = (unit - segment.units_before) // segment.chunks, segment.chunk + (unit - segment.units_before) % segment.chunks
    place = segment.slot * layer.slot_stride + head * layer.head_stride
    part = Part(layer.keys + place, layer.values + place, chunk * CHUNK, min(chunk * CHUNK + CHUNK, segment.end))
    _write_rows(call, layer, segment, head, part)
    n = (segment.end - segment.start) * (layer.heads // layer.kv_heads)
    partials = wave.partials + 4 * (segment.partials_before + (unit - segment.units_before) * n * (HEADER + layer.dim))
    first = 0
    while first < n:
        count = TILE if n - first >= TILE else 1
        _attend_tile(call, layer, segment, head, part, first, count, partials)
        first += count


@exact_inner
def _merge_query(call: Any, layer: Any, segment: Any, partials: int, token: int, own: int) -> None:
    """out = the chunks of one token's query head `own`, added in their order."""
    dim, group = layer.dim, layer.heads // layer.kv_heads
    position = segment.start + token
    chunk, n = _first_seen(layer, position) // CHUNK, (segment.end - segment.start) * group
    count = position // CHUNK + 1 - chunk
    step = n * (HEADER + dim) * 4
    first = own // group * segment.chunks + chunk - segment.chunk
    partial = partials + 4 * (segment.partials_before + (token * group + own % group) * (HEADER + dim)) + first * step
    shares = np.empty((count + 7) // 8 * 8, np.float32)
    for i in range(len(shares)):
        shares[i] = floats_at(partial + i * step, 1)[0] if i < count else np.float32(-np.inf)
    exp_all(address_of(shares), len(shares) // 8, greatest(address_of(shares), len(shares) // 8))
    alive(shares)
    out = floats_at(call.out + ((segment.first + token) * layer.heads + own) * dim * 4, dim)
    out[:] = 0
    weight = np.float32(0.0)
    for i in range(count):
        header, sums = floats_at(partial + i * step, HEADER), floats_at(partial + i * step + HEADER * 4, dim)
        weight += header[1] * shares[i]
        for column in range(dim):
            out[column] += sums[column] * shares[i]
    for column in range(dim):
        out[column] /= weight


@exact_inner
def _merge_head(address: int, own: int) -> None:
    """Query head `own` of every token."""
    call = call_at(address)
    layer, wave = layer_at(call.layer), wave_at(call.wave)
    at = wave.segments
    while segment_at(at).chunks > 0:
        segment = segment_at(at)
        for token in range(segment.end - segment.start):
            _merge_query(call, layer, segment, wave.partials, token, own)
        at += SEGMENT_BYTES


@exact_kernel
def attend(address: int) -> None:
    """The segments' tokens of the CALL at an address."""
    call = call_at(address)
    heads, wave = layer_at(call.layer).heads, wave_at(call.wave)
    if wave.products <= SERIAL_PRODUCTS:
        for unit in range(wave.units):
            _attend_unit(address, unit)
        for own in range(heads):
            _merge_head(address, own)
    else:
        in_parallel(_attend_unit, address, wave.units)
        in_parallel(_merge_head, address, heads)
