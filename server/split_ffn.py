"""SplitFfn: the hot neurons on the GPU, the cold ones on the CPU, and the sum of both. The figure of the paper as code.

The GPU's queue is the concurrency: `start` queues the copy of the input and the hot part and returns; `finish` computes the
cold part on the calling thread, on every core, while the GPU works, then brings it back and adds. No threads, no locks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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
class Sides:
    """Which sides a layer's neurons are on, all its experts together: with a hundred of them, looking costs what computing does."""

    hot: bool
    cold: bool
    predicts: bool

    @classmethod
    def of(cls, banks: Sequence[SplitBank]) -> "Sides":
        hot, cold = (any(len(bank) for bank in side) for side in ([one.hot for one in banks], [one.cold for one in banks]))
        return cls(hot, cold, any(bank.predictor is not None for bank in banks))


@dataclass(frozen=True, slots=True)
class Routed:
    """An expert that some tokens reach: which, int64 [t] (None: all of the step), and with what weights, float32 [t, 1]; in CPU memory."""

    expert: int
    tokens: Tensor | None
    weights: Tensor


@dataclass(frozen=True, slots=True)
class SplitFfn:
    """`banks` [L][E]. Hot banks and the spine are on `staging.device`, cold banks in CPU memory."""

    rule: FfnRule
    banks: Sequence[Sequence[SplitBank]]
    staging: Staging
    sides: Sequence[Sides] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sides", [Sides.of(banks) for banks in self.banks])

    @property
    def repeats(self) -> bool:
        """Whether every step of few tokens runs the same kernels on the same memory: dense layers, all on the CPU."""
        banks = [bank for layer in self.banks for bank in layer]
        cold = all(len(bank.hot) == 0 and len(bank.cold) > 0 for bank in banks)
        return self.staging.device.type == "cpu" and cold and all(len(layer) == 1 for layer in self.banks)

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> "SplitPending":
        banks, sides = self.banks[layer], self.sides[layer]
        routed = None if routing is None else routes(routing.cpu())
        made = spine_ops(self.staging.device).input(banks[0].hot.up.format, x)
        coming = self.staging.send_down(made) if sides.cold else None
        hot = combine(banks, made, routed, self._hot) if sides.hot or coming is None else None
        states: Mapping[State, Tensor] = {"normed": x.cpu(), "residual": residual.cpu()} if sides.predicts else {}
        return SplitPending(self, banks, hot, coming, routed, states)

    def _hot(self, bank: SplitBank, x: Input, tokens: Tensor | None) -> Tensor:
        return gpu_ops.ffn(bank.hot, x, self.rule)


@dataclass(frozen=True, slots=True)
class SplitPending:
    """`hot` is None when no neuron of the layer is, `coming` when all are; `states` are what predictors read."""

    ffn: SplitFfn
    banks: Sequence[SplitBank]
    hot: Tensor | None
    coming: Arriving | None
    routed: Sequence[Routed] | None
    states: Mapping[State, Tensor]

    def finish(self) -> Tensor:
        if self.coming is None:
            assert self.hot is not None
            return self.hot
        partial = self.ffn.staging.send_up(combine(self.banks, self.coming.wait(), self.routed, self._cold))
        return partial if self.hot is None else self.hot + partial

    def _cold(self, bank: SplitBank, x: Input, tokens: Tensor | None) -> Tensor:
        if bank.predictor is None:
            return cpu_ops.ffn(bank.cold, x, self.ffn.rule)
        state = self.states[bank.predictor.reads]
        return cpu_ops.predicted_ffn(bank.cold, x, self.ffn.rule, bank.predictor, state if tokens is None else state[tokens])


def routes(routing: Tensor) -> list[Routed]:
    """routing float32 [T, E], in CPU memory -> the experts that are reached."""
    goes = routing != 0
    found = []
    for expert in goes.any(dim=0).nonzero()[:, 0].tolist():
        tokens = goes[:, expert].nonzero()[:, 0]
        whole = len(tokens) == len(routing)
        found.append(Routed(expert, None if whole else tokens, routing[:, expert, None] if whole else routing[tokens, expert, None]))
    return found


def combine(banks: Sequence[SplitBank], x: Input, routed: Sequence[Routed] | None, compute: Compute) -> Tensor:
    """Sum over experts of routing · ffn, [T, H]. An expert computes only the tokens that were routed to it."""
    if routed is None:
        return compute(banks[0], x, None)
    total = torch.zeros(x.values.shape, dtype=torch.float32, device=x.values.device)
    for one in routed:
        weights = one.weights.to(total.device)
        if one.tokens is None:
            total += weights * compute(banks[one.expert], x, None)
        else:
            some = Input(x.values[one.tokens], None if x.scales is None else x.scales[one.tokens])
            total.index_add_(0, one.tokens.to(total.device), weights * compute(banks[one.expert], some, one.tokens))
    return total
