"""The planted predictor names the share it should, and nearly all that fire; a rectified up fires where it is meant to."""

from dataclasses import replace

import pytest
import torch

from benchmarks.activity import shares
from benchmarks.planted import FIRING, PASSING, PREDICTED, Planted, States, build_predictor, firing_rates, predictor_rank
from benchmarks.shapes import LLAMA2_7B
from models.bank import NeuronBank
from models.rows import Rows
from models.spec import FfnRule
from tests.benchmarks.test_synthetic import SMALL

SEED = 3


@pytest.mark.parametrize("mean", [FIRING, PASSING])
def test_rates_have_the_wanted_mean(mean: float) -> None:
    assert firing_rates(5632, mean).mean().item() == pytest.approx(mean, rel=1e-6)


def test_a_predictor_at_7b_has_rank_1024() -> None:
    assert predictor_rank(LLAMA2_7B.hidden) == 1024


def test_the_predictor_names_its_share_and_nearly_all_that_fire() -> None:
    spec = replace(SMALL, hidden=512, n_neurons=1024)
    gate = Rows.encode("int4", Planted(spec, SEED).gate(0, spec.n_neurons))
    states = States(spec.hidden).draw(64, torch.Generator().manual_seed(4))
    counted = shares(NeuronBank(gate, gate, gate), states, spec.rule, build_predictor(spec, SEED, "int4"))
    assert counted.named == pytest.approx(PREDICTED, abs=0.01)
    assert counted.recall > 0.9
    assert counted.fired == pytest.approx(FIRING, abs=0.015)


def test_where_both_are_rectified_the_rates_multiply_to_those_of_firing() -> None:
    planted = Planted(replace(SMALL, rule=FfnRule("gated_both", "relu")), SEED)
    assert planted.up_bias is not None
    states = planted.states
    passing, firing = (torch.special.ndtr(each * states.constant / states.deviation) for each in (planted.gate_bias, planted.up_bias))
    assert passing.mean().item() == pytest.approx(PASSING, abs=1e-3)
    assert (passing * firing).mean().item() == pytest.approx(FIRING, abs=2e-3)


def test_the_order_begins_with_what_fires_most() -> None:
    planted = Planted(SMALL, SEED)
    assert planted.order.shape == (1, SMALL.n_neurons)
    assert planted.gate_bias[planted.order[0]].diff().max() <= 0
