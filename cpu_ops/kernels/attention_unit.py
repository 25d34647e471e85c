"""Which unit of attention a number is: one segment, one key/value head, one chunk of positions."""

from typing import Any, NamedTuple

from cpu_ops.kernels.attention_blocks import CHUNK, SEGMENT_BYTES, first_seen, segment_at
from cpu_ops.kernels.compile import exact_inner


class Unit(NamedTuple):
    """`segment` is its SEGMENT's address; `keys` and `values` are those of its head's position 0."""

    segment: int
    head: int
    chunk: int
    keys: int
    values: int


@exact_inner
def unit_of(layer: Any, wave: Any, number: int) -> Unit:
    """Units go by segment, then head, then chunk."""
    at = wave.segments
    while segment_at(at + SEGMENT_BYTES).units_before <= number:
        at += SEGMENT_BYTES
    segment = segment_at(at)
    own = number - segment.units_before
    head = own // segment.chunks
    place = segment.slot * layer.slot_stride + head * layer.head_stride
    return Unit(at, head, segment.chunk + own - head * segment.chunks, layer.keys + place, layer.values + place)


@exact_inner
def first_position(layer: Any, unit: Unit) -> int:
    """The first one that a unit reads."""
    return max(unit.chunk * CHUNK, first_seen(layer, segment_at(unit.segment).start))
