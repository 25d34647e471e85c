"""Small models, machines and profiles to plan for. Nothing here is measured."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.bits import FormatName
from models.manifest import Formats, Manifest, computed_sizes
from models.spec import FfnRule, ModelSpec, Rope
from profiles.firing import FiringProfile
from profiles.hardware import DENSITIES, Around, Cpu, FormatPace, Gpu, HardwareProfile, Pace, WidthPace

GATED = FfnRule("gated", "relu")
PLAIN = FfnRule("plain", "relu")
BOTH = FfnRule("gated_both", "relu")
SPEC = ModelSpec(
    family="llama",
    n_layers=3,
    hidden=64,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    n_neurons=320,
    vocab=256,
    context=128,
    rule=GATED,
    rope=Rope(theta=10000.0, dim=16),
)
GPU = Gpu(
    name="test card",
    measured=True,
    vram_bytes=8 * 10**9,
    bandwidth=100e9,
    to_device=10e9,
    to_host=5e9,
    launch_seconds=1e-6,
    sync_seconds=2e-6,
)


def build_cpu(scanning: float = 10e9, gathering: float = 5e9) -> Cpu:
    """The same rates at every level and density, for every format and width."""
    pace = Pace(streaming=10e9, scanning=scanning, gathering=(gathering,) * len(DENSITIES))
    width = WidthPace(width=256, region_seconds=3e-6, bank_seconds=1e-6, cached=pace, memory=pace)
    around = Around(layer_seconds=7e-6, step_seconds=9e-6)
    formats = (FormatPace(format="int8", cached=around, memory=around, widths=(width,)),)
    return Cpu(name="test cpu", measured=True, cores=2, ram_bytes=16 * 10**9, formats=formats)


CPU = build_cpu()
MACHINE = HardwareProfile(gpu=GPU, cpu=CPU)
NO_GPU = HardwareProfile(gpu=None, cpu=CPU)


def manifest_of(spec: ModelSpec = SPEC, name: FormatName = "int8") -> Manifest:
    formats = Formats.of(name)
    sizes = computed_sizes(spec, formats)
    return Manifest(name="toy", source="/toy", fingerprint="f" * 64, assumed=False, spec=spec, formats=formats, sizes=sizes)


def experts_spec(n_experts: int = 4, per_token: int = 2) -> ModelSpec:
    return replace(SPEC, n_experts=n_experts, experts_per_token=per_token)


def profile_of(spec: ModelSpec = SPEC, seed: int = 0) -> FiringProfile:
    """Uneven random counts over 1,000 tokens; the gate passes at least as often as the neuron fires."""
    rng = np.random.default_rng(seed)
    tokens = 1000
    routed = rng.integers(tokens // 3, tokens + 1, spec.n_banks) if spec.n_experts > 1 else np.full(spec.n_banks, tokens)
    gate: NDArray[np.int64] = (routed[:, None] * rng.random((spec.n_banks, spec.n_neurons)) ** 4).astype(np.int64)
    fired = (gate * rng.random(gate.shape)).astype(np.int64) if spec.rule.kind == "gated_both" else gate
    return FiringProfile(
        fired=fired.astype(np.uint32),
        gate_passed=gate.astype(np.uint32),
        routed=routed.astype(np.uint32),
        tokens=tokens,
        first_half=(fired // 2).astype(np.uint32),
        fingerprint="f" * 64,
        corpus="dice",
    )
