"""Spine: every weight that is not an FFN neuron, loaded. A layer's q, k and v are one matrix, since they meet the same vector."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from models.rows import Rows


@dataclass(frozen=True, slots=True)
class Norm:
    """float32 [H]: the gain, and for a layer norm the bias."""

    gain: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class LayerSpine:
    """Norms and biases float32. qkv [q + 2·kv, H] (q rows, then k, then v), o [H, q], router [E, H].

    `ffn_norm` is None where the FFN reads what attention reads; `q_norm` and `k_norm` [head dim] are gains.
    """

    attention_norm: Norm
    qkv: Rows
    qkv_bias: Tensor | None
    o: Rows
    o_bias: Tensor | None
    ffn_norm: Norm | None
    down_bias: Tensor | None
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None
    router: Rows | None = None


@dataclass(frozen=True, slots=True)
class Entrance:
    """From tokens to states: embed [V, W], positions [context, H], project [H, W] where W is not H."""

    embed: Rows
    positions: Rows | None = None
    project: Rows | None = None


@dataclass(frozen=True, slots=True)
class Spine:
    """`head` is the entrance's `embed` when they are tied. `norm` is the last one; project_out [W, H]."""

    entrance: Entrance
    layers: Sequence[LayerSpine]
    norm: Norm | None
    head: Rows
    project_out: Rows | None = None
