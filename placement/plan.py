"""From a question to its placement: budget, rates, cost and solver, one after the other. Knows no command line.

Types and files are `placement/artefact.py`'s; they are named here too, so that a server needs one import.
"""

import hashlib

import numpy as np

from models.manifest import Manifest
from placement import solver
from placement.artefact import Expected, Placement, Question, load_placement, save_placement
from placement.budget import Budget, Demand, Line, cpu_lines, margin_bytes, no_ram, room, spine_lines
from placement.cost import GROUP, Costs, tabulate
from placement.rates import Ints, Rates, assumed, recorded
from profiles.firing import FiringProfile
from profiles.hardware import HardwareProfile

__all__ = ["Placement", "Question", "ask", "load_placement", "save_placement", "solve"]


def ask(
    manifest: Manifest,
    profile: FiringProfile | None,
    hardware: HardwareProfile,
    *,
    vram_bytes: int | None,
    ram_bytes: int,
    context: int,
    slots: int,
    predictor_bytes: int = 0,
) -> Question:
    """The question these make. `vram_bytes` None is all the card has; without a card it is None, whatever was given."""
    card_bytes = None if hardware.gpu is None else vram_bytes if vram_bytes is not None else hardware.gpu.vram_bytes
    return Question(
        fingerprint=manifest.fingerprint,
        format=manifest.formats.neurons,
        weights_assumed=manifest.assumed,
        profile=None if profile is None else profile_fingerprint(profile),
        hardware=hardware,
        vram_bytes=card_bytes,
        ram_bytes=ram_bytes,
        context=context,
        slots=slots,
        predictor_bytes=predictor_bytes,
    )


def solve(
    manifest: Manifest,
    profile: FiringProfile | None,
    hardware: HardwareProfile,
    *,
    vram_bytes: int | None,
    ram_bytes: int,
    context: int,
    slots: int,
) -> Placement:
    """The placement of least predicted seconds per token; DoesNotFit when there is none. Raises BadValue for a profile of another shape."""
    return answer(
        manifest, profile, ask(manifest, profile, hardware, vram_bytes=vram_bytes, ram_bytes=ram_bytes, context=context, slots=slots)
    )


def answer(manifest: Manifest, profile: FiringProfile | None, question: Question) -> Placement:
    """`solve` for a question already made of this model and this profile."""
    spec, demand = manifest.spec, question.demand
    available = room(manifest, demand)
    rates = assumed(spec) if profile is None else recorded(profile, spec)
    costs = tabulate(manifest, rates, question.hardware, question.context)
    solution = solver.solve(costs.seconds, costs.cuts, least=available.least, most=available.most)
    if solution.status == "infeasible":  # no number of whole groups lies between what RAM asks for and VRAM allows
        raise no_ram(manifest, demand, available.most)
    hot = costs.cuts[list(solution.choice)]
    served, served_in_all = shares(rates, hot)
    return Placement(
        model=manifest.name,
        corpus=None if profile is None else profile.corpus,
        question=question,
        n_layers=spec.n_layers,
        n_experts=spec.n_experts,
        n_neurons=spec.n_neurons,
        group=GROUP,
        hot=counts(rates.order, hot, spec.n_experts),
        served=served,
        served_in_all=served_in_all,
        vram=vram_budget(manifest, demand, int(hot.sum())),
        ram=ram_budget(manifest, demand, int(hot.sum())),
        expected=expected(costs, solution.choice, on_gpu=question.hardware.gpu is not None),
        status=solution.status,
        gap=solution.gap,
        solve_seconds=solution.solve_seconds,
    )


def counts(order: Ints, hot: Ints, n_experts: int) -> tuple[int, ...]:
    """order [L, E·N], hot [L] -> how many of each layer's hottest belong to each expert, [L·E]."""
    n = order.shape[1] // n_experts
    return tuple(int(c) for row, k in zip(order, hot, strict=True) for c in np.bincount(row[:k] // n, minlength=n_experts))


def shares(rates: Rates, hot: Ints) -> tuple[tuple[float, ...], float]:
    """Share of the firings that the hottest `hot` [L] neurons make: of each layer, and of the model. Silent layers count as 0."""
    order = rates.order
    served = np.array([rates.fired[layer, order[layer, :k]].sum() for layer, k in enumerate(hot)])
    total = rates.fired.sum(axis=1)
    of_layer = np.divide(served, total, out=np.zeros_like(total), where=total > 0)
    return tuple(min(1.0, float(share)) for share in of_layer), min(1.0, float(served.sum() / total.sum())) if total.any() else 0.0


def vram_budget(manifest: Manifest, demand: Demand, hot: int) -> Budget | None:
    if demand.vram_bytes is None:
        return None
    margin = Line(name="safety margin", bytes=margin_bytes(demand.vram_bytes))
    neurons = Line(name="hot neurons", bytes=hot * manifest.sizes.neuron)
    return Budget(what="VRAM", limit_bytes=demand.vram_bytes, lines=(*spine_lines(manifest, demand), margin, neurons))


def ram_budget(manifest: Manifest, demand: Demand, hot: int) -> Budget:
    margin = Line(name="safety margin", bytes=margin_bytes(demand.ram_bytes))
    neurons = Line(name="cold neurons", bytes=manifest.neurons_bytes - hot * manifest.sizes.neuron)
    return Budget(what="RAM", limit_bytes=demand.ram_bytes, lines=(*cpu_lines(manifest, demand), margin, neurons))


def expected(costs: Costs, choice: tuple[int, ...], *, on_gpu: bool) -> Expected:
    gpu, cpu, transfers = costs.split(choice)
    return Expected(
        gpu_seconds=gpu + (costs.spine if on_gpu else 0.0),
        cpu_seconds=cpu + (0.0 if on_gpu else costs.spine),
        transfer_seconds=transfers,
        full_context_seconds=costs.full_context,
    )


def profile_fingerprint(profile: FiringProfile) -> str:
    """A hash of everything in the profile that a plan depends on."""
    digest = hashlib.sha256(f"{profile.fingerprint} {profile.tokens} {profile.fired.shape}".encode())
    for table in (profile.fired, profile.gate_passed, profile.routed):
        digest.update(np.ascontiguousarray(table).tobytes())
    return digest.hexdigest()
