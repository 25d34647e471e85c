"""Predicted seconds per token of every cut of every layer. Knows rates and bandwidths, no budgets and no files.

    T(k)   = spine + head + Σ_l max( G_l(k_l), copies + C_l(k_l) )         the CPU term vanishes when every neuron of l is hot
    spine  = bytes of the spine's layers / GPU bandwidth + 12 launches per layer
    head   = bytes of the head / GPU bandwidth
    G_l(k) = launch + Σ over hot neurons of P(routed)·bytes / GPU bandwidth       hot ones are computed dense, if routed to
    copies = the input down + the partial sum up (each 4·H bytes) + one wait
    C_l(k) = banks routed to · bank + Σ over cold neurons of P(routed)·scanned / scanning rate
                    + Σ over cold neurons of (P(gate passed)·up + P(fired)·down) / gathering rate at their density
    scanned = gate row and biases; of a plain FFN, which has no gate, up row and bias, and only `down` is gathered
    density = Σ over cold neurons of (P(gate passed) + P(fired)) / 2 ÷ Σ of P(routed); of a plain FFN P(fired) alone

k_l is one of the cuts 0, 64, 128, …, all: that many of the layer's neurons, hottest first, over all its experts. One sequence
decodes; the KV cache's reading, which grows with the text, is told apart. Rates are those of the kernels at the rows' format
and width (`placement/kernels.py`), and of the bytes that the CPU reads again and again: its cold neurons, as if every layer were cut
alike, and whatever else it computes. Without a GPU everything is the CPU's, there are no copies, and k = 0:

    spine  = bytes of the spine's layers / streaming rate + layer and 2 regions (qkv, o) per layer + step
    head   = bytes of the head / streaming rate of its format + region
    full context = bytes of its keys and values / streaming rate of bf16
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.manifest import Manifest
from placement.kernels import SCANNING, STREAMING, Kernels, around, gathering
from placement.rates import Rates
from profiles.hardware import Cpu, HardwareProfile

GROUP = 64  # neurons
SPINE_LAUNCHES_PER_LAYER = 12  # norms, q, k, v, two rotations, cache, attention, output, two sums, router or its like
SPINE_MATRICES = 2  # of a layer: q, k and v as one, output
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
    spec = manifest.spec
    cuts = cuts_of(spec.n_experts * spec.n_neurons)
    if hardware.gpu is None:
        return _on_cpu(manifest, rates, hardware.cpu, cuts, context)
    gpu, kv_bytes = hardware.gpu, spec.kv_bytes_per_token() * context
    spine = (manifest.sizes.spine + _head_bytes(manifest)) / gpu.bandwidth + spec.n_layers * SPINE_LAUNCHES_PER_LAYER * gpu.launch_seconds
    hot = gpu.launch_seconds + _before(_routed(manifest, rates), cuts) * manifest.sizes.neuron / gpu.bandwidth
    cold = _cold(manifest, rates, hardware.cpu, cuts, _cold_bytes(manifest, cuts))
    state = STATE_BYTES * spec.hidden
    copies = state / gpu.to_device + state / gpu.to_host + gpu.sync_seconds
    return Costs(cuts, hot, cold, copies, spine, kv_bytes / gpu.bandwidth)


def _on_cpu(manifest: Manifest, rates: Rates, cpu: Cpu, cuts: Ints, context: int) -> Costs:
    """Everything the CPU's."""
    spec, formats = manifest.spec, manifest.formats
    head_bytes = _head_bytes(manifest)
    footprint = _cold_bytes(manifest, cuts) + manifest.sizes.spine + head_bytes
    cold = _cold(manifest, rates, cpu, cuts, footprint)
    spine, head, keys = (Kernels.of(cpu, name, spec.hidden) for name in (formats.spine, formats.embedding, "bf16"))
    streaming = [float(kernels.per_byte(footprint[:1])[0, STREAMING]) for kernels in (spine, head, keys)]
    layer_seconds, step_seconds = around(cpu, formats.spine, float(footprint[0]))
    layers = manifest.sizes.spine * streaming[0] + spec.n_layers * (layer_seconds + SPINE_MATRICES * spine.region_seconds)
    head_seconds = head_bytes * streaming[1] + head.region_seconds
    full_context = spec.kv_bytes_per_token() * context * streaming[2]
    return Costs(cuts, np.zeros_like(cold), cold, 0.0, layers + step_seconds + head_seconds, full_context)


def _head_bytes(manifest: Manifest) -> int:
    """What a token reads of the head; of an embedding that is not the head too, only one row, left out."""
    return manifest.sizes.embedding // (1 if manifest.spec.tied_head else 2)


def _cold_bytes(manifest: Manifest, cuts: Ints) -> Floats:
    """float64 [J]: of all cold neurons, were every layer cut alike."""
    cold: Floats = (cuts[-1] - cuts) * float(manifest.spec.n_layers * manifest.sizes.neuron)
    return cold


def _cold(manifest: Manifest, rates: Rates, cpu: Cpu, cuts: Ints, footprint: Floats) -> Floats:
    """C_l(k) at every cut: float64 [L, J]; `footprint` [J]."""
    spec, sizes, order = manifest.spec, manifest.sizes, rates.order
    kernels = Kernels.of(cpu, manifest.formats.neurons, spec.hidden)
    gate, fired = np.take_along_axis(rates.gate, order, axis=1), np.take_along_axis(rates.fired, order, axis=1)
    plain = spec.rule.kind == "plain"
    scanned, gathered = (sizes.up_row, fired * sizes.down_row) if plain else (sizes.gate_row, gate * sizes.up_row + fired * sizes.down_row)
    routed, per_byte = _after(_routed(manifest, rates), cuts), kernels.per_byte(footprint)
    density = _after(fired if plain else (gate + fired) / 2, cuts) / np.maximum(routed, 1e-9)
    scanning = routed * (scanned + sizes.neuron_biases) * per_byte[:, SCANNING]
    banks: Floats = rates.routed.sum(axis=1, keepdims=True) * kernels.bank_seconds
    cold: Floats = banks + scanning + _after(gathered, cuts) * gathering(per_byte, density)
    return cold


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
