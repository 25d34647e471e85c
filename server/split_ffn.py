"""SplitFfn: the hot neurons on the GPU, the cold ones on the CPU, and the sum of both. The figure of the paper as code.

The GPU's queue is the concurrency: `start` queues the copy of the input and the hot part and returns; `finish` computes the
cold part on the calling thread, on every core, while the GPU works, then brings it back and adds. No threads, no locks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import cpu_ops
import gpu_ops
from gpu_ops.transfer import Arriving, Staging
from models.bank import NeuronBank
from models.formats import Input
from models.spec import FfnRule

Compute = Callable[[NeuronBank, Input, FfnRule], Tensor]


@dataclass(frozen=True, slots=True)
class SplitBank:
    """The neurons of one (layer, expert), parted."""

    hot: NeuronBank
    cold: NeuronBank


@dataclass(frozen=True, slots=True)
class SplitFfn:
    """`banks` [L][E]. Hot banks and the spine are on `staging.device`, cold banks in CPU memory."""

    rule: FfnRule
    banks: Sequence[Sequence[SplitBank]]
    staging: Staging

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> "SplitPending":
        experts = self.banks[layer]
        made = experts[0].hot.up.format.input(x)
        cold = [bank.cold for bank in experts]
        coming = self.staging.send_down(made) if any(map(len, cold)) else None
        hot = combine([bank.hot for bank in experts], made, self.rule, routing, gpu_ops.ffn)
        return SplitPending(self, cold, hot, coming, routing)


@dataclass(frozen=True, slots=True)
class SplitPending:
    ffn: SplitFfn
    cold: Sequence[NeuronBank]
    hot: Tensor
    coming: Arriving | None  # None when every neuron of the layer is hot
    routing: Tensor | None

    def finish(self) -> Tensor:
        if self.coming is None:
            return self.hot
        routing = None if self.routing is None else self.routing.cpu()
        partial = combine(self.cold, self.coming.wait(), self.ffn.rule, routing, cpu_ops.ffn)
        return self.hot + self.ffn.staging.send_up(partial)


def combine(banks: Sequence[NeuronBank], x: Input, rule: FfnRule, routing: Tensor | None, compute: Compute) -> Tensor:
    """Sum over experts of routing · ffn, [T, H]. An expert computes only the tokens that were routed to it."""
    if routing is None:
        return compute(banks[0], x, rule)
    total = torch.zeros(x.values.shape, dtype=torch.float32, device=x.values.device)
    for expert, bank in enumerate(banks):
        tokens = routing[:, expert].nonzero()[:, 0]
        if len(tokens) and len(bank):
            routed = Input(x.values[tokens], None if x.scales is None else x.scales[tokens])
            total.index_add_(0, tokens, routing[tokens, expert, None] * compute(bank, routed, rule))
    return total
