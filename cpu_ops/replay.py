"""A decode step's layers, recorded once for each number of tokens and played back: one call from Python for all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from cpu_ops.attend import LANES, PIECE, only_wave
from cpu_ops.describe import Block
from cpu_ops.kernels.attention import CALL as ATTEND
from cpu_ops.kernels.attention import attend as attend_kernel
from cpu_ops.kernels.replay import function_of, replay
from cpu_ops.tape import Tape, recording
from models.kv_cache import KvCache
from models.layers import Rotation, Segments
from models.spec import ModelSpec

Layers = Callable[[Tensor, Rotation, Segments, KvCache], Tensor]
SEGMENTS, UNITS, PRODUCTS, PARTIALS = (list(ATTEND.names or ()).index(name) for name in ("segments", "units", "products", "partials"))


@dataclass(frozen=True, slots=True)
class Recorded:
    """A tape, the memory its input is put into and its output comes from, and its calls as `replay` takes them."""

    tape: Tape
    x: Tensor
    rotation: Rotation
    out: Tensor
    calls: Block

    def play(self, x: Tensor, rotation: Rotation, segments: Segments, cache: KvCache) -> Tensor:
        self.x.copy_(x)
        self.rotation.cos.copy_(rotation.cos)
        self.rotation.sin.copy_(rotation.sin)
        wave = only_wave(segments, cache.spec)
        room = torch.empty(wave.partial_floats)
        for kernel, block in self.tape.calls:
            if kernel is attend_kernel:
                block[SEGMENTS], block[UNITS], block[PRODUCTS], block[PARTIALS] = wave.address, wave.units, wave.products, room.data_ptr()
        replay(self.calls.ctypes.data, len(self.tape.calls))
        return self.out.clone()


_RECORDED: WeakKeyDictionary[KvCache, dict[int, Recorded]] = WeakKeyDictionary()


def holds(spec: ModelSpec) -> bool:
    """Whether layers of this model are kernels throughout, alike in every layer: what else they do, a tape would not repeat."""
    torch_only = spec.norm == "layer" or spec.qk_norm or spec.residual_scale != 1 or spec.n_experts > 1
    return not torch_only and not spec.turned and not spec.windowed


def replayed(x: Tensor, rotation: Rotation, segments: Segments, cache: KvCache, layers: Layers) -> Tensor:
    """layers(x, …), for a model whose every step of T tokens calls the same kernels, and which has the cache for itself."""
    if len(x) > PIECE or cache.spec.head_dim % LANES:
        return layers(x, rotation, segments, cache)
    tapes = _RECORDED.setdefault(cache, {})
    recorded = tapes.get(len(x))
    if recorded is not None:
        return recorded.play(x, rotation, segments, cache)
    tapes[len(x)] = recorded = record(x.clone(), Rotation(rotation.cos.clone(), rotation.sin.clone()), segments, cache, layers)
    return recorded.out.clone()


def record(x: Tensor, rotation: Rotation, segments: Segments, cache: KvCache, layers: Layers) -> Recorded:
    with recording() as tape:
        out = layers(x, rotation, segments, cache)
    return Recorded(tape, x, rotation, out, calls_of(tape))


def calls_of(tape: Tape) -> Block:
    """int64 [calls, 2]: the calls of a tape as `replay` takes them."""
    functions = {kernel: function_of(kernel) for kernel, _ in tape.calls}
    return np.array([(functions[kernel], block.buffer_info()[0]) for kernel, block in tape.calls], np.int64)
