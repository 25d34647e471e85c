"""What every format's functions promise, beside decoded weights in float64: any width, strided rows, the same bits in any company."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bits import BITS, FORMAT_NAMES, GROUP, FormatName
from models.formats import FORMATS, Input
from models.rows import Rows
from tests.cpu_ops.kernels.calls import ask, axpys, lonely_products, products, random, raw_sums, record_views, settled

each_format = pytest.mark.parametrize("name", FORMAT_NAMES)


def widths(name: FormatName) -> st.SearchStrategy[int]:
    """Runs of eight groups, pairs of groups, a group alone; every remainder of a plain row."""
    return st.integers(1, 35).map(lambda groups: groups * GROUP) if BITS[name].grouped else st.integers(1, 140)


def example(name: FormatName, n: int, k: int, tokens: int, seed: int) -> tuple[Rows, Input]:
    return record_views(name, random(n, k, seed=seed)), FORMATS[name].input(random(tokens, k, seed=seed + 1))


@each_format
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_products_of_any_width_and_number_of_tokens(name: FormatName, data: st.DataObject) -> None:
    rows, x = example(name, 3, data.draw(widths(name)), data.draw(st.integers(0, 16)), data.draw(st.integers(0, 99)))
    one_at_a_time = lonely_products(rows, x)
    assert torch.equal(products(rows, x), one_at_a_time)
    if len(x) > 0:
        terms = x.decode().double().abs() @ rows.decode().double().abs().T
        difference = one_at_a_time.double() - x.decode().double() @ rows.decode().double().T
        assert (difference.abs() <= 4e-7 * terms).all()


@each_format
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_added_in_one_call_or_one_by_one(name: FormatName, data: st.DataObject) -> None:
    rows, _ = example(name, 9, data.draw(widths(name)), 1, data.draw(st.integers(0, 99)))
    chosen = data.draw(st.lists(st.integers(0, 8), max_size=9))
    factors = random(len(chosen), seed=5)
    together, alone = raw_sums(rows), raw_sums(rows)
    axpys(rows, chosen, factors, together)
    for place, row in enumerate(chosen):
        axpys(rows, [row], factors[place : place + 1], alone)
    assert torch.equal(together, alone)
    chosen_rows = rows.decode().double()[chosen]
    difference = settled(rows, together).double() - factors.double() @ chosen_rows
    terms = factors.double().abs() @ chosen_rows.abs()  # what is added may cancel: rounding is measured by what went in
    assert difference.abs().max() <= 1e-6 * terms.max()


@each_format
def test_a_row_by_itself_is_decoded_to_the_bit(name: FormatName) -> None:
    rows, _ = example(name, 4, 352, 1, 0)
    for i in range(4):
        raw = raw_sums(rows)
        axpys(rows, [i], torch.ones(1), raw)
        assert torch.equal(settled(rows, raw), rows.decode()[i])


@pytest.mark.parametrize("name", ["int4", "int8"])
@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
@pytest.mark.parametrize("group", [0, 5, 8, 10])
def test_a_scale_that_is_no_number_spoils_its_group_and_no_other(name: FormatName, scale: float, group: int) -> None:
    rows, x = example(name, 5, 11 * GROUP, 5, 0)
    rows.planes[1][2, group] = scale
    raw = raw_sums(rows)
    axpys(rows, [0, 1, 2, 3, 4], torch.ones(5), raw)
    spoilt = torch.arange(11 * GROUP) // GROUP == group
    assert torch.equal(settled(rows, raw).isfinite(), ~spoilt)
    for product in (lonely_products(rows, x), products(rows, x)):
        assert torch.equal(product.isfinite().all(0), torch.arange(5) != 2)


@pytest.mark.parametrize("name", ["int4", "int8"])
def test_every_float16_is_a_scale(name: FormatName) -> None:
    """Zero, subnormal, normal, largest, infinite, NaN: a group for each, all its weights 1."""
    scales = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    one = {"int4": torch.tensor(0x99, dtype=torch.uint8), "int8": torch.tensor(1, dtype=torch.int8)}[name]
    rows = Rows(FORMATS[name], len(scales) * GROUP, (one.repeat(1, BITS[name].weight * len(scales) * GROUP // 8), scales.unsqueeze(0)))
    raw = raw_sums(rows)
    axpys(rows, [0], torch.ones(1), raw)
    expected = scales.float() if name == "int8" else torch.where(scales.isinf(), torch.nan, scales.float())  # 9 − 8 infinities
    torch.testing.assert_close(settled(rows, raw), expected.repeat_interleave(GROUP), rtol=0, atol=0, equal_nan=True)


def test_the_extreme_bytes_do_not_saturate() -> None:
    """int8 weights of −128 against inputs of ±127: the largest sums that 16 bits have to hold."""
    k = 11 * GROUP
    rows = Rows(FORMATS["int8"], k, (torch.full((1, k), -128, dtype=torch.int8), torch.ones(1, 11, dtype=torch.float16)))
    for value in (127, -127):
        x = Input(torch.full((1, k), value, dtype=torch.int8), torch.ones(1, 11))
        assert products(rows, x).item() == -128 * value * k


@pytest.mark.parametrize("name", ["bf16", "float32"])
def test_a_weight_that_is_no_number_spoils_its_column_and_no_other(name: FormatName) -> None:
    weights = random(5, 75)
    weights[2, 40] = float("nan")
    rows, x = record_views(name, weights), Input(random(5, 75))
    raw = raw_sums(rows)
    axpys(rows, [0, 1, 2, 3, 4], torch.ones(5), raw)
    assert settled(rows, raw).isnan().nonzero().flatten().tolist() == [40]
    assert torch.equal(products(rows, x).isnan().all(0), torch.arange(5) == 2)


@pytest.mark.parametrize("name", ["int4", "int8"])
def test_an_input_that_is_no_number_spoils_its_token_and_no_other(name: FormatName) -> None:
    values = random(5, 9 * GROUP)
    values[3, 100] = float("nan")
    rows, x = record_views(name, random(4, 9 * GROUP)), FORMATS[name].input(values)
    for product in (lonely_products(rows, x), products(rows, x)):
        assert torch.equal(product.isnan().any(1), torch.arange(5) == 3)


@each_format
def test_asking_for_a_row_changes_nothing(name: FormatName) -> None:
    rows, _ = example(name, 3, 352, 1, 0)
    before = rows.decode().clone()
    for i in range(3):
        ask(rows, i)
    assert torch.equal(rows.decode(), before)
