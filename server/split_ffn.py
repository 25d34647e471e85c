"""SplitFfn: the hot neurons on the GPU, the cold ones on the CPU, and the sum of both. The figure of the paper as code.

The GPU's queue is the concurrency: `start` queues the copy of the input and the hot part and returns; `finish` computes the
cold part on the calling thread, on every core, while the GPU works, then brings it back and adds. No threads, no locks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import cpu_ops
import gpu_ops
from gpu_ops.transfer import Arriving, Staging
from models.bank import NeuronBank
from models.formats import Input
from models.ops import Ops
from models.predictor import Predictor, State
from models.spec import FfnRule

Compute = Callable[["SplitBank", Input, Tensor | None], Tensor]  # of the tokens named by an index, or of all


def spine_ops(device: torch.device) -> Ops:
    """What computes the spine where it lies."""
    return gpu_ops if device.type == "cuda" else cpu_ops


@dataclass(frozen=True, slots=True)
class SplitBank:
    """The neurons of one (layer, expert), parted. `predictor` names cold neurons, in CPU memory; without one selection is exact."""

    hot: NeuronBank
    cold: NeuronBank
    predictor: Predictor | None = None


@dataclass(frozen=True, slots=True)
class SplitFfn:
    """`banks` [L][E]. Hot banks and the spine are on `staging.device`, cold banks in CPU memory."""

    rule: FfnRule
    banks: Sequence[Sequence[SplitBank]]
    staging: Staging

    @property
    def repeats(self) -> bool:
        """Whether every step of few tokens runs the same kernels on the same memory: dense layers, all on the CPU."""
        banks = [bank for layer in self.banks for bank in layer]
        cold = all(len(bank.hot) == 0 and len(bank.cold) > 0 for bank in banks)
        return self.staging.device.type == "cpu" and cold and all(len(layer) == 1 for layer in self.banks)

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> "SplitPending":
        banks = self.banks[layer]
        made = spine_ops(self.staging.device).input(banks[0].hot.up.format, x)
        coming = self.staging.send_down(made) if any(len(bank.cold) for bank in banks) else None
        hot = combine(banks, made, routing, self._hot) if any(len(bank.hot) for bank in banks) or coming is None else None
        predicting = any(bank.predictor is not None for bank in banks)
        states: Mapping[State, Tensor] = {"normed": x.cpu(), "residual": residual.cpu()} if predicting else {}
        return SplitPending(self, banks, hot, coming, routing, states)

    def _hot(self, bank: SplitBank, x: Input, tokens: Tensor | None) -> Tensor:
        return gpu_ops.ffn(bank.hot, x, self.rule)


@dataclass(frozen=True, slots=True)
class SplitPending:
    """`hot` is None when no neuron of the layer is, `coming` when all are; `states` are what predictors read."""

    ffn: SplitFfn
    banks: Sequence[SplitBank]
    hot: Tensor | None
    coming: Arriving | None
    routing: Tensor | None
    states: Mapping[State, Tensor]

    def finish(self) -> Tensor:
        if self.coming is None:
            assert self.hot is not None
            return self.hot
        routing = None if self.routing is None else self.routing.cpu()
        partial = self.ffn.staging.send_up(combine(self.banks, self.coming.wait(), routing, self._cold))
        return partial if self.hot is None else self.hot + partial

    def _cold(self, bank: SplitBank, x: Input, tokens: Tensor | None) -> Tensor:
        if bank.predictor is None:
            return cpu_ops.ffn(bank.cold, x, self.ffn.rule)
        state = self.states[bank.predictor.reads]
        return cpu_ops.predicted_ffn(bank.cold, x, self.ffn.rule, bank.predictor, state if tokens is None else state[tokens])


def combine(banks: Sequence[SplitBank], x: Input, routing: Tensor | None, compute: Compute) -> Tensor:
    """Sum over experts of routing · ffn, [T, H]. An expert computes only the tokens that were routed to it."""
    if routing is None:
        return compute(banks[0], x, None)
    total = torch.zeros(x.values.shape, dtype=torch.float32, device=x.values.device)
    for expert, bank in enumerate(banks):
        tokens = routing[:, expert].nonzero()[:, 0]
        if len(tokens):
            routed = Input(x.values[tokens], None if x.scales is None else x.scales[tokens])
            total.index_add_(0, tokens, routing[tokens, expert, None] * compute(bank, routed, tokens))
    return total
