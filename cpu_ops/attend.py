"""`attend` on the CPU: a kernel that reads the cache once for up to PIECE tokens of a segment; a prompt is a row of such pieces.

Twice as fast as torch's attention on a prompt of 512 tokens (7B heads: 38 ms a layer against 70), and the same bits however
the prompt was cut.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from cpu_ops.describe import Block, place
from cpu_ops.kernels.attention import attend as attend_kernel
from cpu_ops.kernels.attention_blocks import CHUNK, LAYER, MOST_DIM, SEGMENT, WAVE, partial_floats
from cpu_ops.scratch import scratch
from cpu_ops.tape import fresh, run
from models import layers
from models.kv_cache import KvCache
from models.layers import Rotation, Segment, Segments
from models.spec import ModelSpec

PIECE = 16  # tokens of one segment at a time: more would need more room for partial sums than the second cache has
LANES = 16  # heads that are no multiple of it go through torch, and so do those wider than MOST_DIM


class Wave:
    """What the kernel has to know of pieces that do not wait for each other, the same in every layer with that window."""

    __slots__ = ("address", "block", "done", "partial_floats", "segments")

    def __init__(self, pieces: int, kv_heads: int) -> None:
        """Room for so many pieces; `take` says which."""
        self.segments, self.block = np.zeros(pieces + 1, SEGMENT), np.zeros(1, WAVE)
        self.done = np.zeros((pieces + 1, kv_heads), np.int64)
        self.block["segments"] = self.segments.ctypes.data
        self.address, self.partial_floats = self.block.ctypes.data, 0

    def take(self, pieces: Sequence[Segment], cache: KvCache, window: int | None) -> None:
        """The pieces must lie in the cache: the kernel writes memory and checks nothing."""
        spec, rows = cache.spec, list[tuple[int, ...]]()
        units, partials, products = 0, 0, 0
        for one in pieces:
            assert 0 <= one.slot < cache.slots, one
            assert 0 <= one.start < one.end <= cache.context, one
            seen = _first_seen(one, window)
            chunks = (one.end - 1) // CHUNK + 1 - seen // CHUNK
            done = self.done.ctypes.data + len(rows) * self.done.strides[0]
            rows.append((one.slot, one.first, one.start, one.end, seen // CHUNK, chunks, units, partials, done))
            units += spec.n_kv_heads * chunks
            partials += spec.n_heads * (one.end - one.start) * chunks * partial_floats(spec.head_dim)
            products += (one.end - one.start) * (one.end - seen) * spec.q_width * 2
        rows.append((0, 0, 0, 0, 0, 0, units, partials, 0))
        self.segments[: len(rows)] = rows
        self.block["units"], self.block["products"], self.partial_floats = units, products, partials

    def give(self, room: Tensor) -> None:
        """Room for partial sums: float32 [partial_floats] or more."""
        self.block["partials"] = room.data_ptr()


_WAVES: WeakKeyDictionary[Segments, dict[int | None, Sequence[Wave]]] = WeakKeyDictionary()  # by the window they are seen through
_LAYERS: WeakKeyDictionary[KvCache, list[tuple[Block, int]]] = WeakKeyDictionary()


def attend(layer: int, qkv: Tensor, rotation: Rotation, segments: Segments, cache: KvCache) -> Tensor:
    """qkv [T, q + 2·kv] -> [T, q]; writes the step's keys and values. A token's bits are its own."""
    spec = cache.spec
    if goes_through_torch(spec):
        return layers.attend(layer, qkv, rotation, segments, cache)
    out = fresh(qkv.shape[0], spec.q_width)
    for wave in waves(segments, cache, spec.window(layer)):
        wave.give(scratch(wave.partial_floats))
        places = (*place(qkv), rotation.cos.data_ptr(), rotation.sin.data_ptr(), out.data_ptr())
        run(attend_kernel, _layer(cache, layer), wave.address, *places)
    return out


def goes_through_torch(spec: ModelSpec) -> bool:
    """Whether the kernel has no code for such heads."""
    return spec.head_dim % LANES > 0 or spec.head_dim > MOST_DIM


def compile_kernel() -> None:
    """A call with nothing to do."""
    nothing, wave = np.zeros(1, LAYER), Wave(0, 0)
    run(attend_kernel, nothing.ctypes.data, wave.address, *[0] * 5)


def waves(segments: Segments, cache: KvCache, window: int | None) -> Sequence[Wave]:
    """The first piece of every segment, then the second ones, which see what the first ones have written, and so on."""
    known = _WAVES.setdefault(segments, {})
    if window not in known:
        columns = zip_longest(*map(_pieces, segments.each))
        known[window] = [_wave([piece for piece in column if piece is not None], cache, window) for column in columns]
    return known[window]


def move_waves(recorded: Segments, segments: Segments, cache: KvCache) -> None:
    """Writes `segments` where the kernels look that have run on `recorded` ones, of as many tokens, no more than PIECE."""
    moved = _WAVES.get(recorded, {})
    for window, (wave,) in moved.items():
        wave.take(segments.each, cache, window)
    room = scratch(max((wave.partial_floats for (wave,) in moved.values()), default=0))
    for (wave,) in moved.values():
        wave.give(room)


def _wave(pieces: Sequence[Segment], cache: KvCache, window: int | None) -> Wave:
    wave = Wave(sum(one.last - one.first for one in pieces), cache.spec.n_kv_heads)  # as many as the tokens could be cut to
    wave.take(pieces, cache, window)
    return wave


def _pieces(segment: Segment) -> list[Segment]:
    firsts = range(segment.first, segment.last, PIECE)
    cuts = [(first, min(first + PIECE, segment.last)) for first in firsts]
    shift = segment.start - segment.first
    return [replace(segment, first=first, last=last, start=first + shift, end=last + shift) for first, last in cuts]


def _first_seen(segment: Segment, window: int | None) -> int:
    return 0 if window is None else max(0, segment.start - window + 1)


def _layer(cache: KvCache, layer: int) -> int:
    """The address of the LAYER block of one layer's cache."""
    known = _LAYERS.get(cache)
    if known is None:
        known = _LAYERS[cache] = [_describe(cache, index) for index in range(len(cache.keys))]
    return known[layer][1]


def _describe(cache: KvCache, layer: int) -> tuple[Block, int]:
    spec, keys, values = cache.spec, cache.keys[layer], cache.values[layer]
    assert keys.dtype in (torch.bfloat16, torch.float32), keys.dtype
    assert keys.stride() == values.stride()
    assert keys.stride(3) == 1
    strides = [stride * keys.element_size() for stride in keys.stride()]
    shape = (spec.n_heads, spec.n_kv_heads, spec.head_dim, spec.window(layer) or 0)
    block = np.array([(*shape, keys.data_ptr(), values.data_ptr(), *strides[:3], keys.element_size(), spec.attention_scale)], LAYER)
    return block, block.ctypes.data
