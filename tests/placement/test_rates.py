"""Rates: the profile's, and the power law that stands in for one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import BadValue
from models.spec import FfnRule
from placement.rates import assumed, power_law, recorded
from tests.placement.makers import BOTH, SPEC, experts_spec, profile_of


@given(st.integers(1, 3000), st.floats(0.01, 0.99))
def test_the_law_falls_and_is_as_sparse_as_it_was_told(n: int, sparsity: float) -> None:
    law = power_law(n, sparsity)
    assert law.mean() == pytest.approx(1 - sparsity, rel=1e-6)
    assert (np.diff(law) <= 0).all()
    assert law.max() <= 1


def test_a_third_of_the_assumed_neurons_makes_most_of_the_firings() -> None:
    law = assumed(replace(SPEC, n_neurons=11008)).fired[0]
    share = np.searchsorted(np.cumsum(law) / law.sum(), 0.8) / len(law)
    assert 0.26 < share < 0.43  # what was seen for OPT-30B and for a ReGLU-70B


def test_a_drelu_gate_passes_more_often_than_the_neuron_fires() -> None:
    rates = assumed(replace(SPEC, rule=BOTH))
    assert rates.gate.mean() == pytest.approx(0.3)
    assert rates.fired.mean() == pytest.approx(0.1)
    assert (rates.gate >= rates.fired).all()


def test_experts_fire_only_when_routed_to() -> None:
    rates = assumed(experts_spec(n_experts=8, per_token=2))
    assert rates.routed.shape == (3, 8)
    assert rates.fired.mean() == pytest.approx(0.1 * 2 / 8)


def test_an_activation_that_is_never_zero_always_fires() -> None:
    assert (assumed(replace(SPEC, rule=FfnRule("gated", "silu"))).fired == 1).all()


def test_a_profile_gives_rates_per_token_in_layers() -> None:
    spec = experts_spec()
    profile = profile_of(spec)
    rates = recorded(profile, spec)
    assert rates.fired.shape == (3, 4 * 320)
    assert rates.fired[1, 2 * 320 + 5] == profile.fired[1 * 4 + 2, 5] / 1000
    assert rates.routed[2, 3] == profile.routed[2 * 4 + 3] / 1000


def test_a_layers_order_holds_each_banks_order() -> None:
    spec = experts_spec()
    profile = profile_of(spec)
    for layer, order in enumerate(recorded(profile, spec).order):
        for expert in range(4):
            inside = order[order // 320 == expert] % 320
            assert (inside == profile.order[layer * 4 + expert]).all()


def test_a_profile_of_another_shape_is_refused() -> None:
    with pytest.raises(BadValue, match=r"3 banks of 320 neurons.*is of another model, for this one has 3 of 321"):
        recorded(profile_of(), replace(SPEC, n_neurons=321))
