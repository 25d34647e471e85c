"""A predicted set comes first: what it names is computed exactly, what it leaves out contributes nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import cpu_ops
from cpu_ops.ffn import predicted_ffn
from cpu_ops.relu import relu
from models.bank import NeuronBank
from models.bits import FORMAT_NAMES, FormatName
from models.ffn import combine, neurons
from models.formats import FORMATS, Input
from models.predictor import Predictor, predicted
from models.rows import Rows
from models.spec import FfnRule

HIDDEN, RANK = 96, 64
GATED = FfnRule("gated", "relu")
RULES = (GATED, FfnRule("plain", "relu"), FfnRule("gated_both", "relu"), FfnRule("gated", "silu"))


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bank_of(name: FormatName, n: int, rule: FfnRule = GATED) -> NeuronBank:
    gate, up, down = (Rows.encode(name, random(n, HIDDEN, seed=seed) / HIDDEN**0.5) for seed in (1, 2, 3))
    return NeuronBank(None if rule.kind == "plain" else gate, up, down)


def predictor_of(name: FormatName, n: int, threshold: float) -> Predictor:
    return Predictor(Rows.encode(name, random(RANK, HIDDEN, seed=4)), Rows.encode(name, random(n, RANK, seed=5)), threshold)


def by_mask(bank: NeuronBank, x: Input, rule: FfnRule, named: Tensor) -> Tensor:
    """All activations, those not named set to zero, times down. In plain torch."""
    return combine(torch.where(named, neurons(bank, x, rule), 0.0), bank.down.decode())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.kind}-{rule.activation}")
@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_the_named_neurons_and_no_others(name: FormatName, rule: FfnRule) -> None:
    bank, predictor, state = bank_of(name, 300, rule), predictor_of("int8", 300, 40.0), random(3, HIDDEN, seed=6)
    named = predicted(predictor, state)
    assert 0.05 < named.float().mean() < 0.6
    x = FORMATS[name].input(state)
    torch.testing.assert_close(predicted_ffn(bank, x, rule, predictor, state), by_mask(bank, x, rule, named), rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 200), tokens=st.integers(0, 16), name=st.sampled_from(FORMAT_NAMES))
def test_any_shape(n: int, tokens: int, name: FormatName) -> None:
    bank, predictor, state = bank_of(name, n), predictor_of(name, n, 10.0), random(tokens, HIDDEN, seed=7)
    x = FORMATS[name].input(state)
    expected = by_mask(bank, x, GATED, predicted(predictor, state))
    torch.testing.assert_close(predicted_ffn(bank, x, GATED, predictor, state), expected, rtol=1e-4, atol=1e-5)


def oracle(bank: NeuronBank, threshold: float) -> Predictor:
    """Names exactly the neurons whose gate passes: inward shows the state and its negative, outward puts the gate rows on them."""
    assert bank.gate is not None
    eye, gate = torch.eye(HIDDEN), bank.gate.decode()
    return Predictor(Rows.encode("float32", torch.cat((eye, -eye))), Rows.encode("float32", torch.cat((gate, -gate), dim=1)), threshold)


def test_an_oracle_loses_nothing() -> None:
    bank, state = bank_of("float32", 400), random(5, HIDDEN, seed=8)
    x = Input(state)
    torch.testing.assert_close(predicted_ffn(bank, x, GATED, oracle(bank, -1e-4), state), cpu_ops.ffn(bank, x, GATED), rtol=1e-4, atol=1e-5)


def test_no_neuron_named_is_nothing_added() -> None:
    bank, state = bank_of("int4", 100), random(2, HIDDEN, seed=9)
    out = predicted_ffn(bank, FORMATS["int4"].input(state), GATED, predictor_of("int4", 100, 1e9), state)
    assert torch.equal(out, torch.zeros(2, HIDDEN))


def test_a_token_has_its_bits_alone_and_among_others() -> None:
    bank, predictor, state = bank_of("int4", 700), predictor_of("int4", 700, 40.0), random(16, HIDDEN, seed=10)
    together = predicted_ffn(bank, FORMATS["int4"].input(state), GATED, predictor, state)
    for token in range(16):
        own = state[token : token + 1]
        assert torch.equal(predicted_ffn(bank, FORMATS["int4"].input(own), GATED, predictor, own)[0], together[token])


def test_weights_of_a_neuron_not_named_do_not_matter() -> None:
    """NaN everywhere in rows that are not named: the sum is that of the others."""
    state = random(1, HIDDEN, seed=11)
    bank, predictor = bank_of("float32", 200), predictor_of("float32", 200, 40.0)
    named = predicted(predictor, state)[0]
    assert bank.gate is not None
    spoilt = [Rows.encode("float32", rows.decode().masked_fill(~named[:, None], torch.nan)) for rows in (bank.gate, bank.up, bank.down)]
    out = predicted_ffn(NeuronBank(spoilt[0], spoilt[1], spoilt[2]), Input(state), GATED, predictor, state)
    assert torch.equal(out, predicted_ffn(bank, Input(state), GATED, predictor, state))


def test_the_rectifier_keeps_nan_and_is_torchs() -> None:
    x = torch.tensor([[-1.0, -0.0, 0.0, 2.0, float("nan"), -float("inf"), float("inf"), -1e-45]])
    assert torch.equal(relu(x.clone()).nan_to_num(7.0), x.relu().nan_to_num(7.0))


def test_a_prompt_is_computed_whole() -> None:
    bank, state = bank_of("bf16", 100), random(20, HIDDEN, seed=12)
    out = predicted_ffn(bank, Input(state), GATED, predictor_of("bf16", 100, 1e9), state)
    assert torch.equal(out, cpu_ops.ffn(bank, Input(state), GATED))
