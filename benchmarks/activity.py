"""Which neurons fire, and how many bytes a token therefore touches. Counts; times nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.bank import NeuronBank
from models.ffn import activate, apply, dense_linear
from models.manifest import Manifest
from models.ops import Ffn, Pending
from models.predictor import Predictor, predicted
from models.spec import FfnRule


@dataclass(frozen=True, slots=True)
class Activity:
    """Mean shares of neurons over tokens and layers: whose gate is read, passes, and that fire.

    A predictor names those whose gates are read; `recall` is the share of all firing neurons that it names.
    """

    passed: float
    fired: float
    named: float = 1.0
    recall: float = 1.0


EVERYTHING = Activity(passed=1.0, fired=1.0)


class Counting:
    """An Ffn around another: on the layers it is told to watch, it also counts. `predictors` by layer, where there are any."""

    def __init__(self, inner: Ffn, rule: FfnRule, watched: dict[int, NeuronBank], predictors: dict[int, Predictor] | None = None) -> None:
        self.inner, self.rule, self.watched, self.predictors = inner, rule, watched, predictors or {}
        self.counts: list[Activity] = []

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> Pending:
        if layer in self.watched:
            self.counts.append(shares(self.watched[layer], x, self.rule, self.predictors.get(layer)))
        return self.inner.start(layer, x, residual, routing)

    @property
    def activity(self) -> Activity:
        columns = [(each.passed, each.fired, each.named, each.recall) for each in self.counts]
        return Activity(*torch.tensor(columns).mean(0).tolist())


def shares(bank: NeuronBank, x: Tensor, rule: FfnRule, predictor: Predictor | None = None) -> Activity:
    """Of the neurons of a bank, over the tokens of x [T, H], which is also what the predictor reads."""
    made = bank.up.format.input(x)
    up = dense_linear(bank.up, made, bank.up_bias)
    gate = None if bank.gate is None else dense_linear(bank.gate, made, bank.gate_bias)
    passed = apply(rule.activation, up if gate is None else gate, rule.threshold) != 0
    fired = activate(gate, up, rule) != 0
    named = torch.ones_like(fired) if predictor is None else predicted(predictor, x)
    found = share(fired & named)
    return Activity(share(passed & named), found, share(named), found / max(share(fired), 1e-9))


def share(of: Tensor) -> float:
    return float(of.float().mean())


def decode_bytes(manifest: Manifest, activity: Activity, context: int, predictor_bytes: int = 0) -> int:
    """Bytes one token reads at decode: spine, head, one embedding row, keys and values so far, predictors, and its share of neurons.

    Gate-first: every named gate row (up row where there is no gate), up where the gate passes, down where the neuron fires.
    """
    spec, sizes = manifest.spec, manifest.sizes
    head = sizes.embedding if spec.tied_head else sizes.embedding // 2
    first, second = (sizes.up_row, 0) if spec.rule.kind == "plain" else (sizes.gate_row, sizes.up_row)
    neuron = activity.named * first + activity.passed * second + activity.fired * sizes.down_row + sizes.neuron_biases
    cache = context * spec.kv_bytes_per_token()
    return round(sizes.spine + head + head / spec.vocab + cache + predictor_bytes + spec.n_banks * spec.n_neurons * neuron)


def prompt_bytes(manifest: Manifest, tokens: int) -> int:
    """Bytes per token of a prompt computed in one step: every weight once, shared by its tokens."""
    return round(decode_bytes(manifest, EVERYTHING, tokens) / tokens)
