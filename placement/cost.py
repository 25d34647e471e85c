"""Predicted seconds per token of every cut of every layer. Knows rates and bandwidths, no budgets and no files.

    T(k)   = spine + head + Σ_l max( G_l(k_l), copies + C_l(k_l) )         the CPU term vanishes when every neuron of l is hot
    spine  = bytes of the spine's layers / GPU bandwidth + 12 launches per layer
    head   = bytes of the head / GPU bandwidth
    G_l(k) = launch + Σ over hot neurons of P(routed)·bytes / GPU bandwidth       hot ones are computed dense, if routed to
    copies = the input down + the partial sum up (each 4·H bytes) + one wait
    C_l(k) = region + Σ over cold neurons of P(routed)·streamed / streaming bandwidth
                    + Σ over cold neurons of (P(gate passed)·up + P(fired)·down) / gathering bandwidth
    streamed = gate row and biases; of a plain FFN, which has no gate, up row and bias, and only `down` is gathered

k_l is one of the cuts 0, 64, 128, …, all: that many of the layer's neurons, hottest first, over all its experts. One sequence
decodes; the KV cache's reading, which grows with the text, is told apart. Without a GPU everything is the CPU's: the spine and
the head stream at its bandwidth with a region per matrix (4 per layer), there are no copies, and k = 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.manifest import Manifest
from placement.rates import Rates
from profiles.hardware import Cpu, HardwareProfile

GROUP = 64  # neurons
SPINE_LAUNCHES_PER_LAYER = 12  # norms, q, k, v, two rotations, cache, attention, output, two sums, router or its like
SPINE_REGIONS_PER_LAYER = 4  # q, k, v, output
STATE_BYTES = 4  # a hidden state crosses as float32

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds. `cuts` [J]: neurons hot in a layer; `gpu` and `cpu` [L, J]: G_l and C_l there; `spine` holds the head too."""

    cuts: Ints
    gpu: Floats
    cpu: Floats
    copies: float
    spine: float
    full_context: float  # reading the KV cache of one sequence whose context is full

    @property
    def seconds(self) -> Floats:
        """float64 [L, J]: what a layer takes at each cut, the table the solver minimises over."""
        cold = self.copies + self.cpu
        cold[:, -1] = 0.0
        return np.maximum(self.gpu, cold)

    def split(self, choice: Sequence[int]) -> tuple[float, float, float]:
        """Where the time of these cuts [L] goes, as (GPU, CPU, transfers): of each layer only the side that the other waits for."""
        layers, cuts = np.arange(len(choice)), np.asarray(choice, dtype=np.int64)
        waits_for_cpu = (cuts < len(self.cuts) - 1) & (self.copies + self.cpu[layers, cuts] > self.gpu[layers, cuts])
        gpu = self.gpu[layers, cuts][~waits_for_cpu].sum()
        return float(gpu), float(self.cpu[layers, cuts][waits_for_cpu].sum()), float(self.copies * waits_for_cpu.sum())


def cuts_of(n: int) -> Ints:
    """int64 [J]: 0, 64, 128, …, n."""
    return np.append(np.arange(0, n, GROUP), n).astype(np.int64)


def tabulate(manifest: Manifest, rates: Rates, hardware: HardwareProfile, context: int) -> Costs:
    """The equation of the docstring at every cut."""
    spec, cpu = manifest.spec, hardware.cpu
    cuts = cuts_of(spec.n_experts * spec.n_neurons)
    spine_bytes, kv_bytes = _spine_bytes(manifest), spec.kv_bytes_per_token() * context
    cold = _cold(manifest, rates, cpu, cuts)
    if hardware.gpu is None:
        spine = spine_bytes / cpu.streaming + spec.n_layers * SPINE_REGIONS_PER_LAYER * cpu.region_seconds
        return Costs(cuts, np.zeros_like(cold), cold, 0.0, spine, kv_bytes / cpu.streaming)
    gpu = hardware.gpu
    spine = spine_bytes / gpu.bandwidth + spec.n_layers * SPINE_LAUNCHES_PER_LAYER * gpu.launch_seconds
    hot = gpu.launch_seconds + _before(_routed(manifest, rates), cuts) * manifest.sizes.neuron / gpu.bandwidth
    state = STATE_BYTES * spec.hidden
    copies = state / gpu.to_device + state / gpu.to_host + gpu.sync_seconds
    return Costs(cuts, hot, cold, copies, spine, kv_bytes / gpu.bandwidth)


def _spine_bytes(manifest: Manifest) -> int:
    """What a token reads of the spine and the head; of an embedding that is not the head too, only one row, left out."""
    return manifest.sizes.spine + manifest.sizes.embedding // (1 if manifest.spec.tied_head else 2)


def _cold(manifest: Manifest, rates: Rates, cpu: Cpu, cuts: Ints) -> Floats:
    """C_l(k) at every cut: float64 [L, J]."""
    sizes, order = manifest.sizes, rates.order
    gate, fired = np.take_along_axis(rates.gate, order, axis=1), np.take_along_axis(rates.fired, order, axis=1)
    if manifest.spec.rule.kind == "plain":
        streamed, gathered = sizes.up_row, fired * sizes.down_row
    else:
        streamed, gathered = sizes.gate_row, gate * sizes.up_row + fired * sizes.down_row
    streaming = _after(_routed(manifest, rates), cuts) * (streamed + sizes.neuron_biases) / cpu.streaming
    return cpu.region_seconds + streaming + _after(gathered, cuts) / cpu.gathering


def _routed(manifest: Manifest, rates: Rates) -> Floats:
    """float64 [L, E·N], hottest neuron first: the probability that its expert is reached."""
    return np.take_along_axis(np.repeat(rates.routed, manifest.spec.n_neurons, axis=1), rates.order, axis=1)


def _before(weights: Floats, cuts: Ints) -> Floats:
    """[L, n] -> [L, J]: the sum over the neurons before each cut."""
    total = np.zeros((weights.shape[0], weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=total[:, 1:])
    return total[:, cuts]


def _after(weights: Floats, cuts: Ints) -> Floats:
    """[L, n] -> [L, J]: the sum over the neurons from each cut on."""
    return _before(weights[:, ::-1], (weights.shape[1] - cuts[::-1]).astype(np.int64))[:, ::-1]
