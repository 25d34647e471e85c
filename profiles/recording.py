"""RecordingFfn: stands in the FFN's place, computes every neuron, and counts which fire. Knows no text and no files."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bank import NeuronBank
from models.ffn import Done, activate, apply, dense_linear, masked
from models.formats import Input
from models.spec import FfnRule, ModelSpec
from profiles.firing import FiringProfile


class Tally:
    """Counts while they grow; the fields are those of FiringProfile."""

    def __init__(self, profile: FiringProfile) -> None:
        self.fired, self.gate_passed = profile.fired.copy(), profile.gate_passed.copy()
        self.first_half, self.routed = profile.first_half.copy(), profile.routed.copy()

    def add(self, bank: int, fired: Tensor, passed: Tensor, *, in_first_half: bool) -> None:
        """fired, passed: bool [T, N] of the tokens that reached `bank`."""
        counts = _counted(fired)
        self.fired[bank] += counts
        self.gate_passed[bank] += _counted(passed)
        self.routed[bank] += len(fired)
        if in_first_half:
            self.first_half[bank] += counts


def _counted(mask: Tensor) -> NDArray[np.uint32]:
    return mask.sum(0).cpu().numpy().astype(np.uint32)


class RecordingFfn:
    """An Ffn over `banks`: layer -> its experts. `in_first_half` says where the text of the next calls belongs."""

    def __init__(self, rule: FfnRule, banks: Mapping[int, Sequence[NeuronBank]], tally: Tally) -> None:
        self.rule, self.banks, self.tally = rule, banks, tally
        self.in_first_half = True

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> Done:
        experts = self.banks[layer]
        total = torch.zeros_like(x)
        for expert, bank in enumerate(experts):
            reached = slice(None) if routing is None else routing[:, expert].nonzero().squeeze(1)
            h, passed = fire(bank, bank.up.format.input(x[reached]), self.rule)
            fired = h != 0 if self.rule.is_sparse else torch.ones_like(h, dtype=torch.bool)
            self.tally.add(layer * len(experts) + expert, fired, passed | fired, in_first_half=self.in_first_half)
            added = h @ bank.down.decode()
            total[reached] += added if routing is None else added * routing[reached, expert : expert + 1]
        return Done(total)


def fire(bank: NeuronBank, x: Input, rule: FfnRule) -> tuple[Tensor, Tensor]:
    """The activation h float32 [T, N], and bool [T, N]: the gate alone (up, where there is no gate) is not zero."""
    up = dense_linear(bank.up, x, bank.up_bias)
    gate = None if bank.gate is None else dense_linear(bank.gate, x, bank.gate_bias)
    first = up if gate is None else gate
    return masked(bank, x, activate(gate, up, rule)), apply(rule.activation, first, rule.threshold) != 0


def nothing_yet(spec: ModelSpec, fingerprint: str, corpus: str) -> FiringProfile:
    """The profile of no tokens."""
    shape = (spec.n_banks, spec.n_neurons)
    zeros, routed = np.zeros(shape, np.uint32), np.zeros(spec.n_banks, np.uint32)
    return FiringProfile(zeros, zeros, routed, 0, zeros, fingerprint, corpus, spec.n_experts)
