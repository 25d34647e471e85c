"""One contract for both sides of the split: whatever the format, the rule and the cut, the two parts add up to dense.

Dense is written out here, in float64, from decoded weights.
"""

import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import cpu_ops
import gpu_ops
from models.bank import NeuronBank
from models.bits import BITS, FORMAT_NAMES, FormatName
from models.formats import FORMATS, Input
from models.ops import Ops
from models.rows import Rows
from models.spec import Activation, FfnKind, FfnRule

SIDES: dict[str, Ops] = {"cpu_ops": cpu_ops, "gpu_ops": gpu_ops}  # mypy holds both modules to the Protocol here
KINDS: tuple[FfnKind, ...] = ("plain", "gated", "gated_both")
ACTIVATIONS: tuple[Activation, ...] = ("relu", "fatrelu", "relu2", "silu", "gelu")
HIDDEN, NEURONS = 96, 150
FEW, PROMPT = 5, 40

each_side = pytest.mark.parametrize("ops", SIDES.values(), ids=SIDES.keys())
each_format = pytest.mark.parametrize("name", FORMAT_NAMES)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stored(name: FormatName, n: int, k: int, seed: int) -> Rows:
    return Rows.encode(name, random(n, k, seed=seed) / k**0.5)


def side_by_side(name: FormatName, up: Tensor, down: Tensor) -> tuple[Rows, Rows]:
    """Rows as a pack stores them: up and down of a neuron in one record, the matrices strided views into it."""
    records = torch.cat([Rows.encode(name, up).records(), Rows.encode(name, down).records()], dim=1)
    width = records.shape[1] // 2
    return Rows.view(name, up.shape[1], records[:, :width]), Rows.view(name, up.shape[1], records[:, width:])


def build_bank(name: FormatName, kind: FfnKind, neurons: int = NEURONS, hidden: int = HIDDEN) -> NeuronBank:
    up, down = side_by_side(name, random(neurons, hidden, seed=1) / hidden**0.5, random(neurons, hidden, seed=2) / neurons**0.5)
    if kind == "plain":
        return NeuronBank(None, up, down, None, random(neurons, seed=3) / 4)
    return NeuronBank(stored(name, neurons, hidden, 4), up, down, random(neurons, seed=5) / 4, random(neurons, seed=6) / 4)


def activation(kind: Activation, z: Tensor, threshold: float) -> Tensor:
    match kind:
        case "relu":
            return z.clamp(min=0)
        case "fatrelu":
            return z * (z >= threshold)
        case "relu2":
            return z.clamp(min=0) ** 2
        case "silu":
            return z * torch.sigmoid(z)
        case "gelu":
            return z * (1 + torch.erf(z / 2**0.5)) / 2


def product(rows: Rows, x: Input, bias: Tensor | None) -> Tensor:
    """float64 [T, n]."""
    z = x.decode().double() @ rows.decode().double().T
    return z if bias is None else z + bias


def dense(bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
    up = product(bank.up, x, bank.up_bias)
    if bank.gate is None:
        h = activation(rule.activation, up, rule.threshold)
    else:
        h = activation(rule.activation, product(bank.gate, x, bank.gate_bias), rule.threshold)
        h = h * (activation(rule.activation, up, rule.threshold) if rule.kind == "gated_both" else up)
    return (h @ bank.down.decode().double()).float()


def clear_of_threshold(bank: NeuronBank, x: Input, rule: FfnRule) -> FfnRule:
    """Moves FATReLU's threshold into the middle of the widest gap near it, so that rounding flips no neuron."""
    sides = [(bank.up, bank.up_bias)] if bank.gate is None else [(bank.gate, bank.gate_bias), (bank.up, bank.up_bias)]
    met = torch.cat([product(rows, x, bias).flatten() for rows, bias in sides]).sort().values
    met = met[(met > 0.2) & (met < 0.4)]
    widest = int(met.diff().argmax())
    return FfnRule(rule.kind, rule.activation, float((met[widest] + met[widest + 1]) / 2))


def assert_same(got: Tensor, wanted: Tensor) -> None:
    """Equal to the rounding of sums in float32, which follows the largest terms."""
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= 3e-6 * wanted.abs().max()


def split(bank: NeuronBank, x: Input, rule: FfnRule, hot: int) -> Tensor:
    return gpu_ops.ffn(bank[:hot], x, rule) + cpu_ops.ffn(bank[hot:], x, rule)


@each_format
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_any_cut_equals_dense(name: FormatName, kind: FfnKind, activation: Activation) -> None:
    bank = build_bank(name, kind)
    for tokens, hot in itertools.product((1, FEW, PROMPT), (0, 1, 55, NEURONS)):
        x = FORMATS[name].input(random(tokens, HIDDEN, seed=tokens))
        rule = clear_of_threshold(bank, x, FfnRule(kind, activation))
        assert_same(split(bank, x, rule, hot), dense(bank, x, rule))


@each_side
@each_format
@pytest.mark.parametrize("tokens", [1, FEW, PROMPT])
def test_linear_is_a_matrix_product(ops: Ops, name: FormatName, tokens: int) -> None:
    rows, bias = stored(name, 70, HIDDEN, 1), random(70, seed=2)
    x = FORMATS[name].input(random(tokens, HIDDEN, seed=3))
    assert_same(ops.linear(rows, x), product(rows, x, None).float())
    assert_same(ops.linear(rows, x, bias), product(rows, x, bias).float())


@each_side
@each_format
def test_nothing_gives_zeros_or_nothing(ops: Ops, name: FormatName) -> None:
    bank, rule = build_bank(name, "gated"), FfnRule("gated", "relu")
    x = FORMATS[name].input(random(2, HIDDEN))
    assert torch.equal(ops.ffn(bank[:0], x, rule), torch.zeros(2, HIDDEN))
    none = Input(x.values[:0], None if x.scales is None else x.scales[:0])
    assert ops.ffn(bank, none, rule).shape == (0, HIDDEN)
    assert ops.linear(bank.up, none).shape == (0, NEURONS)
    assert ops.linear(bank.up[:0], x).shape == (2, 0)


@each_side
@each_format
@pytest.mark.parametrize("tokens", [0, 1, FEW, PROMPT])
def test_input_is_the_formats_own(ops: Ops, name: FormatName, tokens: int) -> None:
    x = random(tokens, HIDDEN)
    got, wanted = ops.input(FORMATS[name], x), FORMATS[name].input(x)
    assert torch.equal(got.values, wanted.values)
    assert torch.equal(got.decode(), wanted.decode())


@each_side
@pytest.mark.parametrize("tokens", [0, 1, FEW, PROMPT])
def test_norm_divides_by_the_root_of_the_mean_square(ops: Ops, tokens: int) -> None:
    x, weight = random(tokens, HIDDEN), random(HIDDEN, seed=1)
    exact = x.double() / (x.double() ** 2).mean(1, keepdim=True).add(1e-5).sqrt() * weight
    torch.testing.assert_close(ops.norm(x, weight, 1e-5), exact.float(), rtol=2e-6, atol=1e-6)


def widths(name: FormatName) -> Sequence[int]:
    return (32, 64, 224, 256, 288, 544) if BITS[name].grouped else (1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 97)


@each_side
@each_format
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_shape(ops: Ops, name: FormatName, data: st.DataObject) -> None:
    hidden, neurons = data.draw(st.sampled_from(widths(name))), data.draw(st.integers(1, 200))
    tokens = data.draw(st.integers(1, 20))
    bank, rule = build_bank(name, "gated", neurons, hidden), FfnRule("gated", "relu")
    x = FORMATS[name].input(random(tokens, hidden, seed=9))
    assert_same(ops.ffn(bank, x, rule), dense(bank, x, rule))
    assert_same(ops.linear(bank.up, x), product(bank.up, x, None).float())


def token(x: Input, which: int) -> Input:
    one = slice(which, which + 1)
    return Input(x.values[one], None if x.scales is None else x.scales[one])


@each_format
@pytest.mark.parametrize("kind", KINDS)
def test_a_tokens_bits_are_its_own_on_the_cpu(name: FormatName, kind: FfnKind) -> None:
    bank, rule = build_bank(name, kind), FfnRule(kind, "relu")
    x = FORMATS[name].input(random(FEW, HIDDEN))
    together, products = cpu_ops.ffn(bank, x, rule), cpu_ops.linear(bank.up, x)
    for which in range(FEW):
        assert torch.equal(cpu_ops.ffn(bank, token(x, which), rule)[0], together[which])
        assert torch.equal(cpu_ops.linear(bank.up, token(x, which))[0], products[which])


@each_side
@each_format
def test_the_same_call_gives_the_same_bits(ops: Ops, name: FormatName) -> None:
    bank, rule = build_bank(name, "gated", neurons=700), FfnRule("gated", "relu")
    x = FORMATS[name].input(random(3, HIDDEN))
    first = ops.ffn(bank, x, rule)
    assert all(torch.equal(ops.ffn(bank, x, rule), first) for _ in range(5))


def spoiled(rows: Rows, neuron: int, value: float) -> Rows:
    """The rows, with `value` in the first weight or first scale of one of them."""
    planes = [plane.clone() for plane in rows.planes]
    planes[-1][neuron, 0] = value
    return Rows(rows.format, rows.k, tuple(planes))


def bank_with_one_silent(name: FormatName, kind: FfnKind, silent: int) -> NeuronBank:
    bank = build_bank(name, kind)
    assert bank.up_bias is not None
    first = bank.up_bias if bank.gate_bias is None else bank.gate_bias
    first[silent] = -100.0
    return bank


@each_side
@each_format
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_silent_neuron_adds_nothing_whatever_its_weights(ops: Ops, name: FormatName, kind: FfnKind, value: float) -> None:
    bank, rule = bank_with_one_silent(name, kind, silent=7), FfnRule(kind, "relu")
    up = bank.up if bank.gate is None else spoiled(bank.up, 7, value)
    broken = NeuronBank(bank.gate, up, spoiled(bank.down, 7, value), bank.gate_bias, bank.up_bias)
    for tokens in (1, FEW, PROMPT):
        x = FORMATS[name].input(random(tokens, HIDDEN))
        assert_same(ops.ffn(broken, x, rule), dense(bank, x, rule))


@each_side
@each_format
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_nan_gate_propagates(ops: Ops, name: FormatName, kind: FfnKind, activation: Activation) -> None:
    bank = build_bank(name, kind)
    if bank.gate is None:
        bank = NeuronBank(None, spoiled(bank.up, 7, float("nan")), bank.down, None, bank.up_bias)
    else:
        bank = NeuronBank(spoiled(bank.gate, 7, float("nan")), bank.up, bank.down, bank.gate_bias, bank.up_bias)
    for tokens in (1, FEW, PROMPT):
        x = FORMATS[name].input(random(tokens, HIDDEN))
        assert ops.ffn(bank, x, FfnRule(kind, activation, threshold=0.1)).isnan().all()


@each_side
@each_format
def test_a_firing_neuron_with_an_infinite_weight_is_seen(ops: Ops, name: FormatName) -> None:
    bank, rule = build_bank(name, "plain"), FfnRule("plain", "silu")
    bank = NeuronBank(None, bank.up, spoiled(bank.down, 7, float("inf")), None, bank.up_bias)
    for tokens in (1, PROMPT):
        out = ops.ffn(bank, FORMATS[name].input(random(tokens, HIDDEN)), rule)
        assert not out[:, 0].isfinite().any()
        assert out[:, 32:].isfinite().all()


@each_side
@each_format
def test_inputs_may_be_strided(ops: Ops, name: FormatName) -> None:
    bank, rule = build_bank(name, "gated"), FfnRule("gated", "relu")
    x = FORMATS[name].input(random(2 * FEW, HIDDEN))
    every_other = Input(x.values[::2], None if x.scales is None else x.scales[::2])
    assert_same(ops.ffn(bank, every_other, rule), dense(bank, every_other, rule))
