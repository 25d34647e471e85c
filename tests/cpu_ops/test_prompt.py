"""Many tokens at once beside the decoded weights in float64, for any shape; and the promise that a token's bits are its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import cpu_ops
from cpu_ops import prompt
from cpu_ops.prompt import product
from cpu_ops.tiles import decode
from cpu_ops.topology import set_threads
from models.bank import NeuronBank
from models.bits import FORMAT_NAMES, GROUP, FormatName
from models.ffn import combine_firing, neurons
from models.formats import FORMATS, Input
from models.rows import Rows
from models.spec import Activation, FfnKind, FfnRule

GROUPED: tuple[FormatName, ...] = ("int4", "int8")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(name: FormatName, n: int, k: int, tokens: int, seed: int = 0) -> tuple[Rows, Input]:
    return Rows.encode(name, random(n, k, seed=seed)), FORMATS[name].input(random(tokens, k, seed=seed + 1))


def multiplied(rows: Rows, x: Input) -> Tensor:
    out = torch.empty(len(x), len(rows))
    product(rows, x, out)
    return out


def expected(rows: Rows, x: Input) -> Tensor:
    return x.decode().double() @ rows.decode().double().T


def assert_product(rows: Rows, x: Input) -> None:
    torch.testing.assert_close(multiplied(rows, x).double(), expected(rows, x), rtol=1e-5, atol=2e-5 * rows.k**0.5)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(GROUPED), st.integers(0, 70), st.integers(1, 40), st.integers(0, 41), st.integers(0, 99))
def test_any_shape(name: FormatName, n: int, groups: int, tokens: int, seed: int) -> None:
    assert_product(*made(name, n, groups * GROUP, tokens, seed))


@pytest.mark.parametrize("name", GROUPED)
def test_rows_and_input_may_be_strided(name: FormatName) -> None:
    rows, x = made(name, 50, 320, 44)
    records = torch.cat([rows.records(), rows.records()], dim=1)[::2]
    wide = Input(x.values.repeat(1, 2)[::2, :320], None if x.scales is None else x.scales.repeat(1, 2)[::2, :10])
    assert_product(Rows.view(name, 320, records[:, : records.shape[1] // 2]), wide)


@pytest.mark.parametrize("name", GROUPED)
def test_a_tokens_bits_are_its_own_on_any_threads(name: FormatName) -> None:
    rows, x = made(name, 200, 640, 23)
    together = multiplied(rows, x)
    set_threads(1)
    for first, last in ((0, 23), (0, 1), (3, 20), (22, 23)):
        assert x.scales is not None
        alone = multiplied(rows, Input(x.values[first:last], x.scales[first:last]))
        assert torch.equal(alone, together[first:last])
    set_threads()


@pytest.mark.parametrize("name", GROUPED)
def test_the_extreme_bytes_do_not_saturate(name: FormatName) -> None:
    """The largest weights against inputs of ±127: the largest sums that 16 bits have to hold."""
    planes = {"int4": [0x00, 0xFF, 0xF0], "int8": [-128, 127, 1]}[name]
    width, kind = FORMATS[name].plane_widths(GROUP)[0], FORMATS[name].plane_types[0]
    weights = torch.tensor(planes, dtype=torch.int16).to(kind).unsqueeze(1).repeat(1, width)
    rows = Rows(FORMATS[name], GROUP, (weights, torch.ones(len(planes), 1, dtype=torch.float16)))
    values = torch.tensor([127, -127, 0], dtype=torch.int8).unsqueeze(1).repeat(7, GROUP)
    x = Input(values, torch.ones(21, 1))
    assert torch.equal(multiplied(rows, x).double(), expected(rows, x))


@pytest.mark.parametrize("name", GROUPED)
def test_a_nan_stays_in_its_row_and_its_token(name: FormatName) -> None:
    rows, x = made(name, 33, 96, 20)
    assert x.scales is not None
    rows.planes[1][5, 1], x.scales[7, 2] = float("nan"), float("nan")
    wrong = multiplied(rows, x).isnan()
    assert wrong[7].all()
    assert wrong[:, 5].all()
    assert wrong.sum() == 33 + 20 - 1


def bank_of(name: FormatName, kind: FfnKind, n: int, k: int, bias: float) -> NeuronBank:
    gate, up, down = (Rows.encode(name, random(n, k, seed=seed) / k**0.5) for seed in range(3))
    biases = torch.full((n,), bias), random(n) + bias
    return NeuronBank(None, up, down, None, biases[1]) if kind == "plain" else NeuronBank(gate, up, down, *biases)


def wanted(bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
    return combine_firing(neurons(bank, x, rule).double(), bank.down.decode().double())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FORMAT_NAMES),
    st.sampled_from(["plain", "gated", "gated_both"]),
    st.sampled_from(["relu", "relu2", "silu"]),
    st.integers(1, 300),
    st.integers(1, 20),
    st.integers(17, 40),
    st.sampled_from([-3.0, -1.0, 0.0]),
)
def test_any_bank(name: FormatName, kind: FfnKind, activation: Activation, n: int, groups: int, tokens: int, bias: float) -> None:
    """Biases that let few, some and half of the neurons fire: `up` row by row and in tiles."""
    bank, rule = bank_of(name, kind, n, groups * GROUP, bias), FfnRule(kind, activation)
    x = FORMATS[name].input(random(tokens, groups * GROUP))
    torch.testing.assert_close(cpu_ops.ffn(bank, x, rule).double(), wanted(bank, x, rule), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("few_pass", [0.0, 1.0], ids=["tiles", "rows"])
def test_either_way_up_is_exact(name: FormatName, few_pass: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wider than a slice of columns, more neurons than a block; a silent neuron's NaN is not read, a gate's NaN is."""
    monkeypatch.setattr(prompt, "FEW_PASS", few_pass)
    bank, rule = bank_of(name, "gated", 300, 608, -1.0), FfnRule("gated", "relu")
    assert bank.gate_bias is not None
    bank.gate_bias[[7, 299]] = -1e6
    for rows in (bank.up, bank.down):
        rows.planes[-1][7] = float("nan")
    x = FORMATS[name].input(random(21, 608))
    sound = cpu_ops.ffn(bank, x, rule)
    torch.testing.assert_close(sound.double(), wanted(bank, x, rule), rtol=1e-4, atol=1e-4)
    bank.gate_bias[299] = float("nan")
    assert cpu_ops.ffn(bank, x, rule).isnan().all()


@pytest.mark.parametrize("name", GROUPED)
def test_a_prompts_tokens_are_their_own_where_few_fire(name: FormatName) -> None:
    bank, rule = bank_of(name, "gated", 300, 320, -1.5), FfnRule("gated", "relu")
    x = FORMATS[name].input(random(50, 320))
    assert x.scales is not None
    together = cpu_ops.ffn(bank, x, rule)
    set_threads(1)
    alone = cpu_ops.ffn(bank, Input(x.values[:19], x.scales[:19]), rule)
    set_threads()
    assert torch.equal(alone, together[:19])


def test_a_long_prompt_is_computed_in_parts() -> None:
    bank, rule = bank_of("int4", "gated", 200, 96, -1.0), FfnRule("gated", "relu")
    x = FORMATS["int4"].input(random(prompt.TOKENS * 2 + 3, 96))
    torch.testing.assert_close(cpu_ops.ffn(bank, x, rule).double(), wanted(bank, x, rule), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("k", [32, 96, 512, 608])
def test_decoded_rows_are_the_formats_own(name: FormatName, k: int) -> None:
    rows, _ = made(name, 70, k, 1)
    assert torch.equal(decode(rows), rows.decode())


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_no_neurons_add_nothing(name: FormatName) -> None:
    rows, x = made(name, 0, 64, 20)
    assert torch.equal(cpu_ops.ffn(NeuronBank(rows, rows, rows), x, FfnRule("gated", "relu")), torch.zeros(20, 64))
