"""Transformer: the forward pass, once, for any device and any FFN. Knows slots and positions; knows nothing of requests."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from models.kv_cache import KvCache
from models.layers import Rotary, Rotation, Segments, segments_of
from models.ops import Ffn, Ops
from models.routing import route
from models.spec import ModelSpec
from models.spine import Entrance, LayerSpine, Norm, Spine
from models.step import Step

Compute = Callable[[Step, Segments, KvCache], Tensor]
Attend = Callable[[Tensor], Tensor]  # the normed state -> what attention adds


class Repeat(Protocol):
    """compute(step, segments, cache), or the same played back."""

    def __call__(self, step: Step, segments: Segments, cache: KvCache, compute: Compute) -> Tensor: ...


class Transformer:
    """`spine` and `cache` live on `device`; `ffn` owns its neurons, wherever they are. Residuals are float32.

    `repeat` may record what a step does and play it back in the next ones (as `cpu_ops.replayed` does).
    """

    def __init__(
        self, spec: ModelSpec, spine: Spine, ffn: Ffn, ops: Ops, *, device: torch.device | str = "cpu", repeat: Repeat | None = None
    ) -> None:
        self.spec, self.spine, self.ffn, self.ops = spec, spine, ffn, ops
        self.device = torch.device(device)
        self.rotary = Rotary(spec, self.device)
        self.run: Compute = self.compute if repeat is None else partial(repeat, compute=self.compute)

    @torch.inference_mode()
    def forward(self, step: Step, cache: KvCache) -> Tensor:
        """Runs `step`, writes its keys and values, and gives logits float32 [R, V] of the wanted rows."""
        return self.run(step, segments_of(step), cache)

    def compute(self, step: Step, segments: Segments, cache: KvCache) -> Tensor:
        """`forward` of a step whose segments are known: nothing but `ops` and `ffn`, so that it can be repeated without Python."""
        positions = step.positions.to(self.device)
        x = enter(self.spec, self.spine.entrance, self.ops, step.tokens.to(self.device), positions)
        x = self.layers(x, self.ops.rotation(self.rotary, positions), segments, cache)
        return self.logits(self.ops.take(x, step.wanted.to(self.device)))

    def layers(self, x: Tensor, rotation: Rotation, segments: Segments, cache: KvCache) -> Tensor:
        """All layers: x [T, H] -> [T, H]."""
        for index, layer in enumerate(self.spine.layers):
            x = run_layer(self.spec, index, layer, self.ffn, self.ops, x, rotation, segments, cache)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """float32 [R, H] -> [R, V]."""
        spec, spine, ops = self.spec, self.spine, self.ops
        if spine.norm is not None:
            x = normalised(spec, ops, x, spine.norm)
        if spine.project_out is not None:
            x = ops.linear(spine.project_out, ops.input(spine.project_out.format, x))
        return ops.linear(spine.head, ops.input(spine.head.format, scaled(x, spec.logit_scale)))


def enter(spec: ModelSpec, entrance: Entrance, ops: Ops, tokens: Tensor, positions: Tensor) -> Tensor:
    """tokens and positions int64 [T], on the spine's device -> float32 [T, H]."""
    x = scaled(ops.embed(entrance.embed, tokens), spec.embedding_scale)
    if entrance.project is not None:
        x = ops.linear(entrance.project, ops.input(entrance.project.format, x))
    return x if entrance.positions is None else ops.add(x, ops.embed(entrance.positions, positions))


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
    """One layer: x [T, H] -> [T, H]. Norms come before what they are for, or after it (`norm_after`)."""
    attend = partial(attention, spec, index, weights, ops, rotation=rotation, segments=segments, cache=cache)
    if spec.residual == "parallel":
        return run_parallel(spec, index, weights, ffn, ops, x, attend)
    given, routing = x, None
    x = ops.add(x, scaled(attend(before(spec, ops, x, weights.attention_norm)), spec.residual_scale))
    x = after(spec, ops, x, weights.attention_norm)
    normed = before(spec, ops, x, weights.ffn_norm)
    if weights.router is not None:
        routing = route(spec, ops, weights.router, given if spec.routing.before_attention else normed)
    x = ops.add(x, scaled(ffn.start(index, normed, x, routing).finish(), spec.residual_scale))
    x = x if weights.down_bias is None else ops.add(x, weights.down_bias)
    return after(spec, ops, x, weights.ffn_norm)


def run_parallel(spec: ModelSpec, index: int, weights: LayerSpine, ffn: Ffn, ops: Ops, x: Tensor, attend: Attend) -> Tensor:
    """A layer whose attention and FFN both read its input; the FFN's work is queued first, and waited for last."""
    normed = before(spec, ops, x, weights.attention_norm)
    pending = ffn.start(index, normed if weights.ffn_norm is None else before(spec, ops, x, weights.ffn_norm), x, None)
    x = ops.add(ops.add(x, attend(normed)), pending.finish())
    return x if weights.down_bias is None else ops.add(x, weights.down_bias)


def attention(
    spec: ModelSpec, index: int, weights: LayerSpine, ops: Ops, normed: Tensor, rotation: Rotation, segments: Segments, cache: KvCache
) -> Tensor:
    """The normed state [T, H] -> what attention adds, [T, H]. Writes the step's keys and values to the cache."""
    qkv = ops.linear(weights.qkv, ops.input(weights.qkv.format, normed), weights.qkv_bias)
    if weights.q_norm is not None and weights.k_norm is not None:
        qkv = heads_normed(spec, ops, qkv, weights.q_norm, weights.k_norm)
    mixed = ops.attend(index, qkv, rotation if spec.rope is None or spec.turns(index) else rotation.none(), segments, cache)
    return ops.linear(weights.o, ops.input(weights.o.format, mixed), weights.o_bias)


def heads_normed(spec: ModelSpec, ops: Ops, qkv: Tensor, q_norm: Tensor, k_norm: Tensor) -> Tensor:
    """qkv [T, q + 2·kv] with each head of q and k normed by itself."""
    q, k, v = qkv.split((spec.q_width, spec.kv_width, spec.kv_width), dim=1)
    q, k = (ops.norm(part.reshape(-1, spec.head_dim), gain, spec.norm_eps).view_as(part) for part, gain in ((q, q_norm), (k, k_norm)))
    return torch.cat((q, k, v), dim=1)


def before(spec: ModelSpec, ops: Ops, x: Tensor, norm: Norm | None) -> Tensor:
    """The norm that comes before attention or FFN, in models that have it there."""
    return x if spec.norm_after or norm is None else normalised(spec, ops, x, norm)


def after(spec: ModelSpec, ops: Ops, x: Tensor, norm: Norm | None) -> Tensor:
    """The norm that comes after them, in models that have it there."""
    return normalised(spec, ops, x, norm) if spec.norm_after and norm is not None else x


def normalised(spec: ModelSpec, ops: Ops, x: Tensor, norm: Norm) -> Tensor:
    """x [T, H], by the model's kind of norm."""
    return ops.norm(x, norm.gain, spec.norm_eps) if norm.bias is None else ops.layer_norm(x, norm.gain, norm.bias, spec.norm_eps)


def scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor
