"""Which neurons fire, and how many bytes a token therefore touches. Counts; times nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.bank import NeuronBank
from models.ffn import activate, apply, dense_linear
from models.manifest import Manifest
from models.ops import Ffn, Pending
from models.spec import FfnRule


@dataclass(frozen=True, slots=True)
class Activity:
    """Mean share of neurons whose gate passes, and that fire, over tokens and layers."""

    passed: float
    fired: float


class Counting:
    """An Ffn around another: on the layers it is told to watch, it also counts."""

    def __init__(self, inner: Ffn, rule: FfnRule, watched: dict[int, NeuronBank]) -> None:
        self.inner, self.rule, self.watched = inner, rule, watched
        self.counts: list[tuple[float, float]] = []

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> Pending:
        if layer in self.watched:
            self.counts.append(shares(self.watched[layer], x, self.rule))
        return self.inner.start(layer, x, residual, routing)

    @property
    def activity(self) -> Activity:
        passed, fired = torch.tensor(self.counts).mean(0).tolist()
        return Activity(passed, fired)


def shares(bank: NeuronBank, x: Tensor, rule: FfnRule) -> tuple[float, float]:
    """Of the neurons of a bank, over the tokens of x [T, H]: whose gate passes, and that fire."""
    made = bank.up.format.input(x)
    up = dense_linear(bank.up, made, bank.up_bias)
    gate = None if bank.gate is None else dense_linear(bank.gate, made, bank.gate_bias)
    passed = apply(rule.activation, up if gate is None else gate, rule.threshold)
    return share_not_zero(passed), share_not_zero(activate(gate, up, rule))


def share_not_zero(values: Tensor) -> float:
    return float((values != 0).float().mean())


def decode_bytes(manifest: Manifest, activity: Activity, context: int) -> int:
    """Bytes one token reads at decode: spine, head, one embedding row, keys and values so far, and its share of neurons.

    Gate-first: every gate row (every up row where there is no gate), up where the gate passes, down where the neuron fires.
    """
    spec, sizes = manifest.spec, manifest.sizes
    head = sizes.embedding if spec.tied_head else sizes.embedding // 2
    first, second = (sizes.up_row, 0) if spec.rule.kind == "plain" else (sizes.gate_row, sizes.up_row)
    neuron = first + activity.passed * second + activity.fired * sizes.down_row + sizes.neuron_biases
    cache = context * spec.kv_bytes_per_token()
    return round(sizes.spine + head + head / spec.vocab + cache + spec.n_banks * spec.n_neurons * neuron)


def prompt_bytes(manifest: Manifest, tokens: int) -> int:
    """Bytes per token of a prompt computed in one step: every weight once, shared by its tokens."""
    return round(decode_bytes(manifest, Activity(1.0, 1.0), tokens) / tokens)
