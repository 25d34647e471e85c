"""The parts of a step that are not the FFN: rows looked up, norm, rotary positions, attention over the cache.

Plain torch, any device: the definition that kernels are held to.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.architectures.rope import inverse_frequencies
from models.kv_cache import KvCache
from models.rows import Rows
from models.spec import ModelSpec
from models.step import Step


@dataclass(frozen=True, slots=True)
class Segment:
    """The tokens of one slot in a step: rows `first`..`last` of it, at positions `start`..`end`."""

    slot: int
    first: int
    last: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Segments:
    """Those of a step, one per slot, in its order. Known by identity: what kernels make of them is made once a step."""

    each: tuple[Segment, ...]


def segments_of(step: Step) -> Segments:
    slots, positions = step.slots.tolist(), step.positions.tolist()
    segments, first = [], 0
    for row in range(1, len(slots) + 1):
        if row == len(slots) or slots[row] != slots[first]:
            segments.append(Segment(slots[first], first, row, positions[first], positions[first] + row - first))
            first = row
    return Segments(tuple(segments))


@dataclass(frozen=True, slots=True)
class Rotation:
    """cos and sin [T, 1, dim/2] of a step's positions, the same in every layer."""

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """[T, heads, dim] -> the same, turned. Pairs are (i, i + dim/2), as Hugging Face lays them out."""
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * self.cos - second * self.sin, second * self.cos + first * self.sin), dim=-1)

    def none(self) -> "Rotation":
        """One that turns nothing, for the same tokens."""
        return Rotation(torch.ones_like(self.cos), torch.zeros_like(self.sin))


class Rotary:
    """Makes the rotation of each step; of a model without rotary positions, one that turns nothing."""

    def __init__(self, spec: ModelSpec, device: torch.device) -> None:
        turning = np.zeros(spec.head_dim // 2, np.float32) if spec.rope is None else inverse_frequencies(spec.rope)
        self.frequencies = torch.from_numpy(turning).to(device)  # [dim/2]
        self.factor = 1.0 if spec.rope is None else spec.rope.attention_factor

    def at(self, positions: Tensor) -> Rotation:
        angles = positions.float().unsqueeze(1) * self.frequencies
        return Rotation((angles.cos() * self.factor).unsqueeze(1), (angles.sin() * self.factor).unsqueeze(1))


def rotation(rotary: Rotary, positions: Tensor) -> Rotation:
    return rotary.at(positions)


def embed(rows: Rows, which: Tensor) -> Tensor:
    return rows[which].decode()


def take(x: Tensor, which: Tensor) -> Tensor:
    return x[which]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def visible(segment: Segment, oldest: int, window: int | None, device: torch.device) -> Tensor | None:
    """bool [t, end - oldest]: which keys each query of a segment may see; None when all of them."""
    if segment.last - segment.first == 1:
        return None
    queries = torch.arange(segment.start, segment.end, device=device).unsqueeze(1)
    keys = torch.arange(oldest, segment.end, device=device)
    mask = keys <= queries
    return mask if window is None else mask & (keys > queries - window)


def attend(layer: int, qkv: Tensor, rotation: Rotation, segments: Segments, cache: KvCache) -> Tensor:
    """qkv [T, q + 2·kv] -> what each token's heads gather, [T, q]. Writes the segments' keys and values to the cache first.

    Rows that belong to none of the segments are not set.
    """
    spec, window = cache.spec, cache.spec.window(layer)
    q, k, v = qkv.split((spec.q_width, spec.kv_width, spec.kv_width), dim=1)
    q = rotation(q.unflatten(1, (spec.n_heads, spec.head_dim)))
    k = rotation(k.unflatten(1, (spec.n_kv_heads, spec.head_dim)))
    v = v.unflatten(1, (spec.n_kv_heads, spec.head_dim))
    mixed = torch.empty_like(qkv[:, : spec.q_width])
    for segment in segments.each:
        rows = slice(segment.first, segment.last)
        cache.write(layer, segment.slot, segment.start, k[rows], v[rows])
        oldest = 0 if window is None else max(0, segment.start - window + 1)
        keys, values = cache.read(layer, segment.slot, oldest, segment.end)
        mask = visible(segment, oldest, window, qkv.device)
        mixed[rows] = attend_segment(spec, q[rows], keys, values, mask)
    return mixed


def attend_segment(spec: ModelSpec, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """queries [t, heads, dim], keys and values [kv heads, s, dim], mask bool [t, s] -> [t, heads·dim]."""
    t = queries.shape[0]
    grouped = queries.transpose(0, 1)  # [heads, t, dim]
    out = F.scaled_dot_product_attention(
        grouped[None], keys[None], values[None], attn_mask=mask, scale=spec.attention_scale, enable_gqa=spec.n_heads != spec.n_kv_heads
    )
    return out[0].transpose(0, 1).reshape(t, spec.q_width)
