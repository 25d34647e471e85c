"""`attend` on the CPU: a kernel that reads the cache once for segments of few tokens, the definition in torch for long ones."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from cpu_ops.describe import Block, place, run
from cpu_ops.kernels.attention import CHUNK, HEADER, LAYER, SEGMENT
from cpu_ops.kernels.attention import attend as attend_kernel
from cpu_ops.scratch import scratch
from models import layers
from models.kv_cache import KvCache
from models.layers import Rotation, Segment, Segments
from models.spec import ModelSpec

FEW_TOKENS = 16  # of one segment; up to here the kernel wins
LANES = 16  # heads that are no multiple of it go through torch


@dataclass(frozen=True, slots=True)
class Plan:
    """What the kernel has to know of a step's segments, the same in every layer. `long` are the others."""

    block: Block
    address: int
    units: int
    products: int
    partial_floats: int
    long: Segments


_PLANS: WeakKeyDictionary[Segments, Plan] = WeakKeyDictionary()
_LAYERS: WeakKeyDictionary[KvCache, list[tuple[Block, int]]] = WeakKeyDictionary()


def attend(layer: int, qkv: Tensor, rotation: Rotation, segments: Segments, cache: KvCache) -> Tensor:
    """qkv [T, q + 2·kv] -> [T, q]; writes the step's keys and values. In segments of FEW_TOKENS a token's bits are its own."""
    plan = _PLANS.get(segments) or _plan(segments, cache.spec)
    out = layers.attend(layer, qkv, rotation, plan.long, cache) if plan.long.each else torch.empty(len(qkv), cache.spec.q_width)
    if plan.units:
        given, angles, room = place(qkv), (rotation.cos.data_ptr(), rotation.sin.data_ptr()), scratch(plan.partial_floats)
        run(attend_kernel, _layer(cache, layer), plan.address, plan.units, plan.products, *given, *angles, room.data_ptr(), out.data_ptr())
    return out


def compile_kernel() -> None:
    """A call with nothing to do."""
    nothing, no_segments = np.zeros(1, LAYER), np.zeros(1, SEGMENT)
    run(attend_kernel, nothing.ctypes.data, no_segments.ctypes.data, *[0] * 8)


def _plan(segments: Segments, spec: ModelSpec) -> Plan:
    suits = spec.head_dim % LANES == 0
    few = [one for one in segments.each if suits and one.last - one.first <= FEW_TOKENS]
    rows, units, partials = [], 0, 0
    for one in few:
        first = _first_seen(one, spec) // CHUNK
        chunks = (one.end - 1) // CHUNK + 1 - first
        rows.append((one.slot, one.first, one.start, one.end, first, chunks, units, partials))
        units += spec.n_kv_heads * chunks
        partials += spec.n_heads * (one.end - one.start) * chunks * (HEADER + spec.head_dim)
    block = np.array([*rows, (0, 0, 0, 0, 0, 0, units, partials)], SEGMENT)
    products = sum((one.end - one.start) * (one.end - _first_seen(one, spec)) for one in few) * spec.q_width * 2
    plan = Plan(block, block.ctypes.data, units, products, partials, Segments(tuple(one for one in segments.each if one not in few)))
    _PLANS[segments] = plan
    return plan


def _first_seen(segment: Segment, spec: ModelSpec) -> int:
    return 0 if spec.sliding_window is None else max(0, segment.start - spec.sliding_window + 1)


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
    shape = (spec.n_heads, spec.n_kv_heads, spec.head_dim, spec.sliding_window or 0)
    block = np.array([(*shape, keys.data_ptr(), values.data_ptr(), *strides[:3], keys.element_size(), spec.attention_scale)], LAYER)
    return block, block.ctypes.data
