"""Transformer: the forward pass, once, for any device and any FFN. Knows slots and positions; knows nothing of requests."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from models.kv_cache import KvCache
from models.layers import Rotary, Rotation, Segments, segments_of
from models.ops import Ffn, Ops
from models.spec import ModelSpec
from models.spine import LayerSpine, Spine
from models.step import Step

Layers = Callable[[Tensor, Rotation, Segments, KvCache], Tensor]


class Repeat(Protocol):
    """layers(x, rotation, segments, cache), computed or played back."""

    def __call__(self, x: Tensor, rotation: Rotation, segments: Segments, cache: KvCache, layers: Layers) -> Tensor: ...


class Transformer:
    """`spine` and `cache` live on `device`; `ffn` owns its neurons, wherever they are. Residuals are float32.

    `repeat` may record what the layers do in a step and play it back in the next ones (as `cpu_ops.replayed` does).
    """

    def __init__(
        self, spec: ModelSpec, spine: Spine, ffn: Ffn, ops: Ops, *, device: torch.device | str = "cpu", repeat: Repeat | None = None
    ) -> None:
        self.spec, self.spine, self.ffn, self.ops = spec, spine, ffn, ops
        self.device = torch.device(device)
        self.rotary = Rotary(spec, self.device)
        self.run: Layers = self.layers if repeat is None else partial(repeat, layers=self.layers)

    @torch.inference_mode()
    def forward(self, step: Step, cache: KvCache) -> Tensor:
        """Runs `step`, writes its keys and values, and gives logits float32 [R, V] of the wanted rows."""
        segments, rotation = segments_of(step), self.rotary.at(step.positions.to(self.device))
        x = self.run(self.embed(step.tokens), rotation, segments, cache)
        return self.logits(x[step.wanted.to(self.device)])

    def layers(self, x: Tensor, rotation: Rotation, segments: Segments, cache: KvCache) -> Tensor:
        """All layers: x [T, H] -> [T, H]."""
        for index, layer in enumerate(self.spine.layers):
            x = run_layer(self.spec, index, layer, self.ffn, self.ops, x, rotation, segments, cache)
        return x

    def embed(self, tokens: Tensor) -> Tensor:
        """int64 [T] -> float32 [T, H]."""
        return self.spine.embed[tokens.to(self.device)].decode()

    def logits(self, x: Tensor) -> Tensor:
        """float32 [R, H] -> [R, V]."""
        head = self.spine.head
        normed = self.ops.norm(x, self.spine.norm, self.spec.norm_eps)
        return self.ops.linear(head, self.ops.input(head.format, normed))


def run_layer(
    spec: ModelSpec,
    index: int,
    weights: LayerSpine,
    ffn: Ffn,
    ops: Ops,
    x: Tensor,
    rotation: Rotation,
    segments: Segments,
    cache: KvCache,
) -> Tensor:
    """One layer: x [T, H] -> [T, H]."""
    normed = ops.norm(x, weights.attention_norm, spec.norm_eps)
    x = ops.add(x, attention(weights, ops, index, normed, rotation, segments, cache))
    normed = ops.norm(x, weights.ffn_norm, spec.norm_eps)
    x = ops.add(x, ffn.start(index, normed, x, None).finish())
    return x if weights.down_bias is None else ops.add(x, weights.down_bias)


def attention(weights: LayerSpine, ops: Ops, index: int, normed: Tensor, rotation: Rotation, segments: Segments, cache: KvCache) -> Tensor:
    """The normed state [T, H] -> what attention adds, [T, H]. Writes the step's keys and values to the cache."""
    qkv = ops.linear(weights.qkv, ops.input(weights.qkv.format, normed), weights.qkv_bias)
    mixed = ops.attend(index, qkv, rotation, segments, cache)
    return ops.linear(weights.o, ops.input(weights.o.format, mixed), weights.o_bias)
