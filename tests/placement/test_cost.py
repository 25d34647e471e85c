"""The cost equation, worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.spec import ModelSpec
from placement.cost import cuts_of, tabulate
from placement.rates import Rates, assumed, recorded
from tests.placement.makers import BOTH, GATED, MACHINE, NO_GPU, PLAIN, SPEC, experts_spec, manifest_of, profile_of

ROW = 64 + 2 * 2  # int8: 64 weights, two float16 scales


def one_layer(**changes: object) -> ModelSpec:
    return replace(SPEC, n_layers=1, n_neurons=128, **changes)  # type: ignore[arg-type]


def flat(fired: float, gate: float, routed: float = 1.0) -> Rates:
    return Rates(np.full((1, 128), fired), np.full((1, 128), gate), np.full((1, 1), routed))


def test_cuts_are_whole_groups_and_the_rest() -> None:
    assert cuts_of(128).tolist() == [0, 64, 128]
    assert cuts_of(130).tolist() == [0, 64, 128, 130]
    assert cuts_of(1).tolist() == [0, 1]


def test_gated_streams_the_gate_and_gathers_the_rest() -> None:
    costs = tabulate(manifest_of(one_layer()), flat(0.1, 0.1), MACHINE, context=100)
    cold = [1e-6 + n * ROW / 10e9 + n * 0.2 * ROW / 5e9 for n in (128, 64, 0)]
    assert costs.cpu[0] == pytest.approx(cold)
    assert costs.gpu[0] == pytest.approx([1e-6 + n * 3 * ROW / 100e9 for n in (0, 64, 128)])


def test_drelu_reads_up_where_the_gate_passes_and_down_where_it_fires() -> None:
    costs = tabulate(manifest_of(one_layer(rule=BOTH)), flat(0.1, 0.3), MACHINE, context=100)
    assert costs.cpu[0, 0] == pytest.approx(1e-6 + 128 * ROW / 10e9 + 128 * (0.3 + 0.1) * ROW / 5e9)


def test_plain_streams_up_and_gathers_only_down() -> None:
    spec = one_layer(rule=PLAIN, ffn_bias=True)
    costs = tabulate(manifest_of(spec), flat(0.1, 0.1), MACHINE, context=100)
    assert costs.cpu[0, 0] == pytest.approx(1e-6 + 128 * (ROW + 4) / 10e9 + 128 * 0.1 * ROW / 5e9)
    assert costs.gpu[0, 2] == pytest.approx(1e-6 + 128 * (2 * ROW + 4) / 100e9)


def test_a_layer_takes_as_long_as_its_slower_side() -> None:
    costs = tabulate(manifest_of(one_layer()), flat(0.1, 0.1), MACHINE, context=100)
    copies = 256 / 10e9 + 256 / 5e9 + 2e-6
    assert costs.copies == pytest.approx(copies)
    assert costs.seconds[0, 0] == pytest.approx(copies + costs.cpu[0, 0])
    assert costs.seconds[0, 1] == pytest.approx(max(costs.gpu[0, 1], copies + costs.cpu[0, 1]))


def test_when_every_neuron_is_hot_nobody_waits_for_the_cpu() -> None:
    costs = tabulate(manifest_of(one_layer()), flat(0.1, 0.1), MACHINE, context=100)
    assert costs.seconds[0, -1] == costs.gpu[0, -1]
    assert costs.split([2]) == (costs.gpu[0, 2], 0.0, 0.0)


def test_the_split_of_the_time_adds_up() -> None:
    spec = replace(SPEC, n_neurons=4000)
    costs = tabulate(manifest_of(spec), recorded(profile_of(spec), spec), MACHINE, context=100)
    choice = [0, 30, len(costs.cuts) - 1]
    assert sum(costs.split(choice)) == pytest.approx(sum(costs.seconds[layer, cut] for layer, cut in enumerate(choice)))


def test_only_the_experts_routed_to_are_read() -> None:
    """Four experts of which half are reached: half the bytes of a dense layer of as many neurons, on either side."""
    manifest = manifest_of(replace(experts_spec(), n_layers=1, n_neurons=32))
    even = Rates(np.full((1, 128), 0.05), np.full((1, 128), 0.05), np.full((1, 4), 0.5))
    costs = tabulate(manifest, even, MACHINE, context=100)
    assert costs.gpu[0, 2] == pytest.approx(1e-6 + 0.5 * 128 * 3 * ROW / 100e9)
    assert costs.cpu[0, 0] == pytest.approx(2 * 1e-6 + 0.5 * 128 * ROW / 10e9 + 128 * 2 * 0.05 * ROW / 5e9)


def test_spine_head_and_cache_are_read_once_a_token() -> None:
    manifest = manifest_of()
    head = 256 * ROW
    costs = tabulate(manifest, assumed(SPEC), MACHINE, context=100)
    assert costs.spine == pytest.approx((manifest.sizes.spine + head) / 100e9 + 3 * 12 * 1e-6)
    assert costs.full_context == pytest.approx(100 * 2 * 3 * 32 * 2 / 100e9)
    tied = tabulate(manifest_of(replace(SPEC, tied_head=True)), assumed(SPEC), MACHINE, context=100)
    assert tied.spine == costs.spine


def test_without_a_gpu_everything_is_the_cpus() -> None:
    manifest = manifest_of()
    costs = tabulate(manifest, assumed(SPEC), NO_GPU, context=100)
    assert costs.copies == 0
    assert not costs.gpu.any()
    fixed = 3 * (7e-6 + 2 * 3e-6) + 9e-6 + 3e-6  # layers with their regions, the step, the head's region
    assert costs.spine == pytest.approx((manifest.sizes.spine + 256 * ROW) / 10e9 + fixed)
    assert costs.full_context == pytest.approx(100 * 2 * 3 * 32 * 2 / 10e9)


@given(st.integers(0, 10_000), st.integers(0, 127))
def test_no_other_hot_set_of_the_same_size_leaves_the_cpu_less_to_do(seed: int, swap: int) -> None:
    """Why one integer a layer is enough: any exchange of a hot and a cold neuron costs time, or nothing."""
    fired = np.random.default_rng(seed).random((1, 128)) ** 3
    rates = Rates(fired, fired, np.ones((1, 1)))
    cold = set(rates.order[0, 64:].tolist())
    hot_one, cold_one = rates.order[0, swap % 64], rates.order[0, 64 + swap // 2]
    exchanged = cold - {int(cold_one)} | {int(hot_one)}
    assert sum(fired[0, i] for i in exchanged) >= sum(fired[0, i] for i in cold)
    costs = tabulate(manifest_of(one_layer(rule=GATED)), rates, MACHINE, context=100)
    assert costs.cpu[0, 1] == pytest.approx(1e-6 + 64 * ROW / 10e9 + sum(fired[0, i] for i in cold) * 2 * ROW / 5e9)
