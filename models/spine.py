"""Spine: every weight that is not an FFN neuron, loaded. A layer's q, k and v are one matrix, since they meet the same vector."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from models.rows import Rows


@dataclass(frozen=True, slots=True)
class LayerSpine:
    """Norms and biases float32. qkv [q + 2·kv, H] (q rows, then k, then v), o [H, q]."""

    attention_norm: Tensor
    qkv: Rows
    qkv_bias: Tensor | None
    o: Rows
    o_bias: Tensor | None
    ffn_norm: Tensor
    down_bias: Tensor | None


@dataclass(frozen=True, slots=True)
class Spine:
    """`head` is `embed` when they are tied."""

    embed: Rows
    layers: Sequence[LayerSpine]
    norm: Tensor
    head: Rows
