"""What attention over the cache is told, block by block of numbers, and how its work is cut."""

from typing import Any, NamedTuple

import numpy as np

from cpu_ops.kernels.compile import exact_inner
from cpu_ops.kernels.pairs import WIDEST
from cpu_ops.kernels.rows import block_at

CHUNK = 512  # positions: 128 KiB of keys in heads of 128, which stay in the second cache for all tiles of queries
MOST_DIM = 1024  # of a head
AHEAD = 12288  # bytes: what is asked for before it is needed
HEADER = 16  # float32 numbers before a partial sum: greatest score, sum of weights, and room up to a cache line
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


def partial_floats(dim: int) -> int:
    """float32 numbers of one query's partial sum."""
    return HEADER + (dim + WIDEST - 1) // WIDEST * WIDEST


floats_of_partial = exact_inner(partial_floats)


class Part(NamedTuple):
    """What a unit attends to: positions low … high of one head, whose position 0 is at `keys` and `values`; keys that come `next`."""

    keys: int
    values: int
    low: int
    high: int
    next: int


@exact_inner
def first_seen(layer: Any, position: int) -> int:
    return 0 if layer.window == 0 else max(0, position - layer.window + 1)
