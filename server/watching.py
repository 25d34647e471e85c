"""Which neurons fire, for whoever looks at the map of the model. Next to nothing is computed while nobody looks. Knows no HTTP.

A watched step multiplies the rows that decide (gate, or up where there is none, and both of a dReLU) once more, so few steps are
watched: at most one in EVERY_SECONDS, and never more than SHARE of the time. Where some neurons are hot, one in METER_SECONDS is
watched even when nobody looks: so the share of firings that the GPU serves is measured and not only planned.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import cpu_ops
import gpu_ops
from models.bank import NeuronBank
from models.ffn import apply
from models.ops import Ops, Pending
from models.predictor import Predictor
from models.rows import Rows
from models.spec import FfnRule
from models.step import Step
from placement.artefact import Placement
from server.engine import Forward
from server.split_ffn import SplitBank, SplitFfn

EVERY_SECONDS = 0.1
METER_SECONDS = 5.0
SHARE = 0.1
MOST_TOKENS = 16  # a prompt's chunk is not watched
MOST_COLUMNS = 128
MOST_CELLS = 1 << 14  # of a whole map: an event stays below 22 kB
MOST_WATCHERS = 16
Counts = NDArray[np.int64]
Listener = Callable[["Firing | None"], None]


class TooManyWatchers(Exception):
    def __init__(self) -> None:
        super().__init__(f"{MOST_WATCHERS} clients look at the map already; try again")


@dataclass(frozen=True, slots=True)
class Layout:
    """The map: a row for each bank, in columns of neighbours in its order, hottest first. `hot` [L·E]: neurons on the GPU."""

    n_layers: int
    n_experts: int
    n_neurons: int
    hot: tuple[int, ...]

    @classmethod
    def of(cls, plan: Placement) -> "Layout":
        return cls(plan.n_layers, plan.n_experts, plan.n_neurons, plan.hot)

    @property
    def columns(self) -> int:
        return max(1, min(MOST_COLUMNS, self.n_neurons, MOST_CELLS // len(self.hot)))

    @property
    def edges(self) -> list[int]:
        """[columns + 1]: where each column begins, and the end."""
        return [column * self.n_neurons // self.columns for column in range(self.columns + 1)]


@dataclass(frozen=True, slots=True)
class Firing:
    """One watched step of `tokens` tokens. `cells` uint8 [L·E, columns]: 255 is a column whose neurons all fired for all tokens.

    `fired_hot`, `fired_cold`: neurons that fired on either side, summed over layers and tokens.
    """

    tokens: int
    cells: NDArray[np.uint8]
    fired_hot: int
    fired_cold: int


class Watch:
    """Who looks, and whether a step is to be watched. The engine's thread asks and publishes; any thread may subscribe."""

    def __init__(self, layout: Layout, clock: Callable[[], float] = time.perf_counter) -> None:
        self.layout = layout
        self._clock = clock
        self._listeners: tuple[Listener, ...] = ()
        self._lock = threading.Lock()
        self._last = self._next = -math.inf
        self._meters = any(layout.hot)

    def subscribe(self, listener: Listener) -> None:
        """`listener` is called with every Firing, and with None when there will be no more: it must not wait. TooManyWatchers."""
        with self._lock:
            if len(self._listeners) >= MOST_WATCHERS:
                raise TooManyWatchers
            self._listeners = (*self._listeners, listener)

    def unsubscribe(self, listener: Listener) -> None:
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each != listener)

    def due(self) -> bool:
        now = self._clock()
        wanted = bool(self._listeners) or (self._meters and now >= self._last + METER_SECONDS)
        return wanted and now >= self._next

    def took(self, seconds: float) -> None:
        """A watched step took so long: the next one waits accordingly."""
        self._last = self._clock()
        self._next = self._last + max(EVERY_SECONDS, seconds / SHARE)

    def close(self) -> None:
        """Sends everybody away."""
        self.publish(None)

    def publish(self, firing: Firing | None) -> None:
        for listener in self._listeners:
            listener(firing)


class WatchingFfn:
    """An Ffn around the split one, that also counts what fires."""

    def __init__(self, inner: SplitFfn, layout: Layout) -> None:
        self.fired_hot = self.fired_cold = 0  # of all watched steps
        self._inner, self._layout = inner, layout
        self._starts = layout.edges[:-1]
        self._begin()

    def _begin(self) -> None:
        self._cells = np.zeros((len(self._layout.hot), self._layout.columns), dtype=np.int64)
        self._hot = self._cold = 0

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> Pending:
        banks = self._inner.banks[layer]
        for expert, bank in enumerate(banks):
            self._count(layer * len(banks) + expert, bank, x if routing is None else x[routing[:, expert] != 0])
        return self._inner.start(layer, x, residual, routing)

    def _count(self, row: int, bank: SplitBank, x: Tensor) -> None:
        hot = fired(gpu_ops, bank.hot, x, self._inner.rule)
        cold = fired(cpu_ops, bank.cold, x.cpu(), self._inner.rule)
        self._hot, self._cold = self._hot + int(hot.sum()), self._cold + int(cold.sum())
        self._cells[row] = np.add.reduceat(np.concatenate([hot, cold]), self._starts)

    def take(self, tokens: int) -> Firing:
        """What was counted in a step of `tokens` tokens, and begins anew."""
        full = np.diff(self._layout.edges) * tokens
        cells = np.ceil(self._cells * 255 / full).astype(np.uint8)  # upwards: what fired is not black
        firing = Firing(tokens, cells, self._hot, self._cold)
        self.fired_hot, self.fired_cold = self.fired_hot + self._hot, self.fired_cold + self._cold
        self._begin()
        return firing


@dataclass(frozen=True, slots=True)
class Watched:
    """A Forward that takes the watching way when somebody looks. Both give the same bits: they run the same kernels."""

    plain: Forward
    watching: Forward
    ffn: WatchingFfn
    watch: Watch

    def __call__(self, step: Step) -> Tensor:
        if len(step.tokens) > MOST_TOKENS or not self.watch.due():
            return self.plain(step)
        started = time.perf_counter()
        logits = self.watching(step)
        self.watch.publish(self.ffn.take(len(step.tokens)))
        self.watch.took(time.perf_counter() - started)
        return logits


@torch.inference_mode()
def fired(ops: Ops, bank: NeuronBank, x: Tensor, rule: FfnRule) -> Counts:
    """For how many of the tokens x [T, H] each neuron of the bank fires: int64 [N]. Every one, where no activation is ever zero."""
    if not rule.is_sparse or len(x) * len(bank) == 0:
        return np.full(len(bank), len(x), dtype=np.int64)
    first, bias = (bank.up, bank.up_bias) if bank.gate is None else (bank.gate, bank.gate_bias)
    passed = passes(ops, first, bias, x, rule)
    if rule.kind == "gated_both":
        passed = passed & passes(ops, bank.up, bank.up_bias, x, rule)
    if bank.mask is not None:
        passed = passed & masking(ops, bank.mask, x)
    counts: Counts = passed.sum(0).cpu().numpy()
    return counts


def masking(ops: Ops, mask: Predictor, x: Tensor) -> Tensor:
    """bool [T, N]: the neurons that a mask, which is part of the model, names."""
    inside = ops.linear(mask.inward, ops.input(mask.inward.format, x)).relu()
    return ops.linear(mask.outward, ops.input(mask.outward.format, inside)) >= mask.threshold


def passes(ops: Ops, rows: Rows, bias: Tensor | None, x: Tensor, rule: FfnRule) -> Tensor:
    """bool [T, N]: the activation of a product is not zero."""
    return apply(rule.activation, ops.linear(rows, ops.input(rows.format, x), bias), rule.threshold) != 0
