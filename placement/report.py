"""A placement as text, for a person: where every byte goes, who serves what, what to expect, and what was only assumed."""

from collections.abc import Iterator

from models.units import format_bytes, format_rate, format_seconds
from placement.artefact import Placement
from placement.budget import Budget

BAR = 20  # characters


def report(plan: Placement) -> str:
    blocks = [list(part(plan)) for part in (heading, budgets, layers, expectations, assumptions)]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def heading(plan: Placement) -> Iterator[str]:
    asked = plan.question
    where = asked.hardware.gpu.name if asked.hardware.gpu is not None else "no GPU"
    slots = "1 slot" if asked.slots == 1 else f"{asked.slots} slots"
    yield f"{plan.model}, {asked.format}, {slots} of {asked.context} tokens, on {where} and {asked.hardware.cpu.name}"
    if asked.hardware.gpu is None:
        yield "There is no GPU: every neuron is computed by the CPU."


def budgets(plan: Placement) -> Iterator[str]:
    """A line per class of bytes."""
    for budget in (plan.vram, plan.ram):
        if budget is not None:
            yield from spent(budget)


def spent(budget: Budget) -> Iterator[str]:
    yield f"{budget.what}, {format_bytes(budget.limit_bytes)}"
    rows = [(line.name, line.bytes) for line in budget.lines]
    for name, count in [*rows, ("left free", budget.free_bytes)]:
        yield f"  {name:<16} {format_bytes(count):>8}  {count:>18,} bytes"


def layers(plan: Placement) -> Iterator[str]:
    """Neurons on the GPU, layer by layer."""
    in_layer = plan.n_experts * plan.n_neurons
    yield f"layer   neurons on the GPU, of {in_layer:<8} {'share of firings they make':>{BAR + 14}}"
    for layer, (hot, served) in enumerate(zip(plan.hot_of_layer, plan.served, strict=True)):
        bar = "#" * round(served * BAR)
        yield f"{layer:>5}   {hot:>9} {hot / in_layer:>7.1%}            {bar:<{BAR}} {served:>6.1%}"
    share = sum(plan.hot) / (plan.n_layers * in_layer)
    yield f"  all   {sum(plan.hot):>9} {share:>7.1%}            {'':<{BAR}} {plan.served_in_all:>6.1%}"


def expectations(plan: Placement) -> Iterator[str]:
    time = plan.expected
    yield f"expected: {format_rate(time.tokens_per_second)} tokens/s for one sequence, bounded by {time.bound}"
    parts = (("GPU", time.gpu_seconds), ("CPU", time.cpu_seconds), ("transfers", time.transfer_seconds))
    told = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in parts if seconds)
    yield f"  {format_seconds(time.seconds)} a token: {told}"
    yield f"  reading a full KV cache of {plan.question.context} tokens adds {format_seconds(time.full_context_seconds)}"
    yield f"  {plan.status}, gap {plan.gap:g}, solved in {format_seconds(plan.solve_seconds)}, groups of {plan.group} neurons"
    yield f"  firing: {plan.corpus or 'assumed'}"


def assumptions(plan: Placement) -> Iterator[str]:
    if plan.assumptions:
        yield "assumed, not measured:"
        yield from (f"  {line}" for line in plan.assumptions)
