"""The FFN in plain torch: decode, multiply, activate. The definition that faster code is held to, on any device.

DenseFfn stands in the FFN's place when nothing is skipped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.bank import NeuronBank
from models.formats import Input
from models.predictor import named
from models.rows import Rows
from models.spec import Activation, FfnRule


def dense_linear(rows: Rows, x: Input, bias: Tensor | None = None) -> Tensor:
    """rows [n, K], x [T, K] -> float32 [T, n]."""
    return F.linear(x.decode(), rows.decode(), bias)


def apply(activation: Activation, z: Tensor, threshold: float) -> Tensor:
    """One activation, elementwise; NaN stays NaN."""
    match activation:
        case "relu":
            return z.relu()
        case "fatrelu":
            return torch.where(z < threshold, 0.0, z)
        case "relu2":
            return z.relu().square()
        case "silu":
            return F.silu(z)
        case "gelu":
            return F.gelu(z)


def activate(gate: Tensor | None, up: Tensor, rule: FfnRule) -> Tensor:
    """Pre-activations [T, N] -> h [T, N]. A neuron whose gate is silent is silent, whatever its up is."""
    if gate is None:
        return apply(rule.activation, up, rule.threshold)
    passed = apply(rule.activation, gate, rule.threshold)
    if rule.kind == "gated_both":
        up = apply(rule.activation, up, rule.threshold)
    return torch.where(passed == 0, 0.0, passed * up)


def neurons(bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
    """h float32 [T, N] of every neuron of the bank."""
    gate = None if bank.gate is None else dense_linear(bank.gate, x, bank.gate_bias)
    return masked(bank, x, activate(gate, dense_linear(bank.up, x, bank.up_bias), rule))


def masked(bank: NeuronBank, x: Input, h: Tensor) -> Tensor:
    """h [T, N] with zeros where the bank's mask, if it has one, does not name a neuron."""
    return h if bank.mask is None else torch.where(named(bank.mask, x), h, 0.0)


def combine_firing(h: Tensor, down: Tensor) -> Tensor:
    """h [T, N], down [N, H] -> h · down [T, H], token by token: a silent neuron's row counts as zeros, whatever it holds."""
    silent = (h == 0).unsqueeze(-1)  # [T, N, 1]
    return torch.stack([one @ down.masked_fill(mask, 0.0) for one, mask in zip(h, silent, strict=True)])


def combine(h: Tensor, down: Tensor) -> Tensor:
    """The same in one product when `down` is finite, which it looks at first: 0 · NaN would be NaN."""
    return h @ down if math.isfinite(down.sum()) else combine_firing(h, down)


def dense_ffn(bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
    """x [T, H] -> float32 [T, H]."""
    return combine(neurons(bank, x, rule), bank.down.decode())


@dataclass(frozen=True, slots=True)
class Done:
    """A Pending with nothing left to wait for."""

    result: Tensor

    def finish(self) -> Tensor:
        return self.result


@dataclass(frozen=True, slots=True)
class DenseFfn:
    """Every neuron, every time. `banks` [L][E]."""

    rule: FfnRule
    banks: Sequence[Sequence[NeuronBank]]

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> Done:
        experts = self.banks[layer]
        made = experts[0].up.format.input(x)
        if routing is None:
            return Done(dense_ffn(experts[0], made, self.rule))
        total = torch.zeros_like(x)
        for expert, bank in enumerate(experts):
            total += routing[:, expert : expert + 1] * dense_ffn(bank, made, self.rule)
        return Done(total)
