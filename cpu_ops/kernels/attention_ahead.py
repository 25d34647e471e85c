"""What a unit of attention asks for before it needs it.

In a decode step nothing of a layer's attention is in a cache: between two visits the whole model has been read. Long contexts are one
stream (see `stream.py`). In short ones a unit is done before what it asks for has come, so each asks for the next one's things too.
"""

from typing import Any

from cpu_ops.kernels.attention_blocks import CHUNK, segment_at
from cpu_ops.kernels.attention_unit import Unit, first_position
from cpu_ops.kernels.compile import exact_inner
from cpu_ops.kernels.lines import ask_to_read, ask_to_write

FIRST_BYTES = 2048  # of keys, and of values


@exact_inner
def ask_unit(call: Any, layer: Any, unit: Unit) -> None:
    """Asks for a unit's new rows and results, to be written, for its first keys and values and for the first token's q, k and v."""
    segment, row = segment_at(unit.segment), layer.row_stride
    low, high = first_position(layer, unit), min(unit.chunk * CHUNK + CHUNK, segment.end)
    new = max(low, segment.start)
    _ask_rows(ask_to_write, unit, new * row, min((high - new) * row, FIRST_BYTES))
    _ask_given(call, layer, segment, unit.head)
    _ask_rows(ask_to_read, unit, low * row, min((min(high, new) - low) * row, FIRST_BYTES))
    its = layer.heads // layer.kv_heads * layer.dim * 4
    ask_to_write(call.out + segment.first * layer.heads * layer.dim * 4 + unit.head * its, its)


@exact_inner
def _ask_rows(ask: Any, unit: Unit, first: int, nbytes: int) -> None:
    """Keys and values, from `first` bytes on."""
    if nbytes > 0:
        ask(unit.keys + first, nbytes)
        ask(unit.values + first, nbytes)


@exact_inner
def _ask_given(call: Any, layer: Any, segment: Any, head: int) -> None:
    its, key_bytes = layer.heads // layer.kv_heads * layer.dim * 4, layer.dim * 4
    given = call.qkv + segment.first * call.qkv_stride
    keys = given + layer.heads * key_bytes + head * key_bytes
    ask_to_read(given + head * its, its)
    ask_to_read(keys, key_bytes)
    ask_to_read(keys + layer.kv_heads * key_bytes, key_bytes)
