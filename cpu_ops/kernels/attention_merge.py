"""The chunks of a head, added: each query's partial sums become its result."""

from typing import Any

import numpy as np

from cpu_ops.kernels.attention_blocks import CHUNK, HEADER, first_seen, floats_of_partial
from cpu_ops.kernels.compile import exact_inner
from cpu_ops.kernels.exp import LANES, exp_all
from cpu_ops.kernels.memory import room
from cpu_ops.kernels.pairs import settle
from cpu_ops.kernels.rows import floats_at

_shares_room = room(LANES * 4)


@exact_inner
def merge_query(call: Any, layer: Any, segment: Any, partials: int, head: int, query: int) -> None:
    """out = the chunks of one query of a head's [tokens · group], added in their order."""
    group, floats = layer.heads // layer.kv_heads, floats_of_partial(layer.dim)
    position = segment.start + query // group
    chunk, n = first_seen(layer, position) // CHUNK, (segment.end - segment.start) * group
    first = (head * segment.chunks + chunk - segment.chunk) * n + query
    partial, weight = partials + 4 * (segment.partials_before + first * floats), np.float32(0.0)
    count = position // CHUNK + 1 - chunk
    weight = floats_at(partial, HEADER)[1] if count == 1 else _add_chunks(partial, n * floats * 4, count, floats - HEADER)
    _write(call, layer, segment, head, query, partial, weight)


@exact_inner
def write_query(call: Any, layer: Any, segment: Any, head: int, query: int, partial: int) -> None:
    """out = a query's only partial sum."""
    _write(call, layer, segment, head, query, partial, floats_at(partial, HEADER)[1])


@exact_inner
def _write(call: Any, layer: Any, segment: Any, head: int, query: int, sums: int, weight: Any) -> None:
    """out = the sums after a header, over the sum of the weights."""
    group = layer.heads // layer.kv_heads
    token = query // group
    out = call.out + ((segment.first + token) * layer.heads + head * group + query - token * group) * layer.dim * 4
    settle(layer.element_bytes, sums + HEADER * 4, np.float32(1.0) / weight, layer.dim, out)


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
