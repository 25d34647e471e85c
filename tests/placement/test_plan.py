"""From model, profile and machine to a placement that keeps its budgets."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import DoesNotFit
from models.spec import ModelSpec
from placement.budget import smallest_limit, spine_lines, total_of
from placement.plan import Placement, ask, solve
from placement.rates import recorded
from tests.placement.makers import BOTH, CPU, GPU, MACHINE, NO_GPU, PLAIN, SPEC, build_cpu, experts_spec, manifest_of, profile_of

PLENTY = 10**10
VARIANTS = {
    "gated": SPEC,
    "plain": replace(SPEC, rule=PLAIN),
    "gated_both": replace(SPEC, rule=BOTH),
    "odd": replace(SPEC, n_neurons=333),
    "one_neuron": replace(SPEC, n_neurons=1, n_layers=1),
    "experts": replace(experts_spec(), n_neurons=50),
}


def vram_for(spec: ModelSpec, neurons: int) -> int:
    """A budget with room for exactly that many."""
    manifest = manifest_of(spec)
    demand = ask(manifest, None, MACHINE, vram_bytes=1, ram_bytes=1, context=64, slots=2).demand
    return smallest_limit(total_of(spine_lines(manifest, demand)) + neurons * manifest.sizes.neuron)


def plan_for(spec: ModelSpec, neurons: int, ram_bytes: int = PLENTY) -> Placement:
    vram_bytes = vram_for(spec, neurons)
    return solve(manifest_of(spec), profile_of(spec), MACHINE, vram_bytes=vram_bytes, ram_bytes=ram_bytes, context=64, slots=2)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(VARIANTS)), st.floats(0, 1.2), st.integers(0, 3))
def test_a_plan_never_spends_more_than_it_was_given(variant: str, share: float, seed: int) -> None:
    spec, manifest = VARIANTS[variant], manifest_of(VARIANTS[variant])
    vram_bytes = vram_for(spec, int(share * spec.n_banks * spec.n_neurons))
    plan = solve(manifest, profile_of(spec, seed), MACHINE, vram_bytes=vram_bytes, ram_bytes=PLENTY, context=64, slots=2)
    assert plan.vram is not None
    assert plan.vram.free_bytes >= 0
    assert plan.ram.free_bytes >= 0
    hot_bytes = {line.name: line.bytes for line in plan.vram.lines}["hot neurons"]
    cold_bytes = {line.name: line.bytes for line in plan.ram.lines}["cold neurons"]
    assert hot_bytes == sum(plan.hot) * manifest.sizes.neuron
    assert hot_bytes + cold_bytes == manifest.neurons_bytes


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_the_hot_neurons_of_a_layer_are_its_hottest_over_all_experts(variant: str) -> None:
    spec = VARIANTS[variant]
    profile = profile_of(spec)
    plan = plan_for(spec, spec.n_banks * spec.n_neurons // 2)
    fired = profile.rate.reshape(spec.n_layers, spec.n_experts, spec.n_neurons)
    hot = np.array(plan.hot).reshape(spec.n_layers, spec.n_experts)
    for layer in range(spec.n_layers):
        by_bank = [-np.sort(-fired[layer, expert]) for expert in range(spec.n_experts)]
        served = sum(rates[:k].sum() for rates, k in zip(by_bank, hot[layer], strict=True))
        best = -np.sort(-fired[layer].ravel())[: hot[layer].sum()]
        assert served == pytest.approx(best.sum())
        assert plan.served[layer] == pytest.approx(best.sum() / max(fired[layer].sum(), 1e-9))


def test_more_vram_is_never_slower() -> None:
    seconds = [plan_for(SPEC, neurons).expected.seconds for neurons in range(0, 1000, 90)]
    assert all(more <= less * (1 + 1e-12) for less, more in pairwise(seconds))
    assert seconds[-1] < seconds[0]


def test_with_room_for_everything_nothing_crosses_to_the_cpu() -> None:
    machine = MACHINE.model_copy(update={"cpu": build_cpu(scanning=1e6, gathering=1e6)})
    plan = solve(manifest_of(), profile_of(), machine, vram_bytes=PLENTY // 10**2 * 50, ram_bytes=PLENTY, context=64, slots=2)
    assert plan.hot == (320, 320, 320)
    assert plan.served_in_all == pytest.approx(1.0)
    assert plan.expected.cpu_seconds == plan.expected.transfer_seconds == 0
    assert plan.expected.bound == "the GPU"


def test_a_model_without_a_gpu_is_all_cold_and_still_a_plan() -> None:
    plan = solve(manifest_of(), profile_of(), NO_GPU, vram_bytes=None, ram_bytes=PLENTY, context=64, slots=2)
    assert plan.hot == (0, 0, 0)
    assert plan.vram is None
    assert {"spine", "KV cache", "cold neurons"} <= {line.name for line in plan.ram.lines}
    assert plan.expected.bound == "the CPU"
    assert plan.expected.tokens_per_second == pytest.approx(1 / plan.expected.cpu_seconds)


def test_ram_too_small_for_all_cold_neurons_makes_more_of_them_hot_than_speed_asks_for() -> None:
    """A card slower than the CPU: left alone, nothing would be hot."""
    slow = MACHINE.model_copy(update={"gpu": GPU.model_copy(update={"bandwidth": 1e6})})
    manifest, profile = manifest_of(), profile_of()
    free = solve(manifest, profile, slow, vram_bytes=PLENTY // 2, ram_bytes=PLENTY, context=64, slots=2)
    assert sum(free.hot) == 0
    tight_bytes = smallest_limit(free.ram.used_bytes - 10**10 // 20 - 300 * manifest.sizes.neuron)
    tight = solve(manifest, profile, slow, vram_bytes=PLENTY // 2, ram_bytes=tight_bytes, context=64, slots=2)
    assert 300 <= sum(tight.hot) < 364
    assert tight.ram.free_bytes >= 0


def test_when_no_whole_groups_lie_between_ram_and_vram_the_ram_that_would_do_is_named() -> None:
    """VRAM for 100 neurons, and RAM that asks for 70: whole groups make 64 or 128."""
    plenty = plan_for(SPEC, 100)
    size = manifest_of().sizes.neuron
    fixed = sum(line.bytes for line in plenty.ram.lines if line.name in ("workspace", "pinned buffers"))
    with pytest.raises(DoesNotFit) as caught:
        plan_for(SPEC, 100, smallest_limit(fixed + (960 - 70) * size))
    assert sum(plan_for(SPEC, 100, caught.value.need_bytes).hot) == 64


def test_a_question_is_equal_only_if_nothing_it_depends_on_changed() -> None:
    def asked(seed: int = 0, vram_bytes: int = 10**9, context: int = 64) -> object:
        return ask(manifest_of(), profile_of(seed=seed), MACHINE, vram_bytes=vram_bytes, ram_bytes=PLENTY, context=context, slots=2)

    assert asked() == asked()
    assert asked() != asked(seed=1)
    assert asked() != asked(vram_bytes=10**9 + 1)
    assert asked() != asked(context=65)


def test_vram_left_out_is_all_the_card_has() -> None:
    question = ask(manifest_of(), None, MACHINE, vram_bytes=None, ram_bytes=1, context=1, slots=1)
    assert question.vram_bytes == GPU.vram_bytes


def test_what_was_assumed_is_named() -> None:
    measured = plan_for(SPEC, 100)
    assert measured.assumptions == []
    guessed = MACHINE.model_copy(
        update={"gpu": GPU.model_copy(update={"measured": False}), "cpu": CPU.model_copy(update={"measured": False})}
    )
    manifest = manifest_of().model_copy(update={"assumed": True})
    plan = solve(manifest, None, guessed, vram_bytes=None, ram_bytes=PLENTY, context=64, slots=2)
    assert [line.split(":")[0] for line in plan.assumptions] == ["the model", "firing", "the GPU", "the CPU"]


def test_a_profile_in_which_nothing_fired_still_makes_a_plan() -> None:
    profile = profile_of()
    silent = np.zeros_like(profile.fired)
    quiet = replace(profile, fired=silent, gate_passed=silent, first_half=silent)
    plan = solve(manifest_of(), quiet, MACHINE, vram_bytes=vram_for(SPEC, 500), ram_bytes=PLENTY, context=64, slots=2)
    assert plan.served_in_all == 0.0
    assert recorded(quiet, SPEC).fired.sum() == 0
