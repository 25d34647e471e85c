"""The contract of every form of reading rows, beside decoded weights in float64; the same table is what `benchmarks.kernels` times."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks import kernels
from benchmarks.row_table import TABLE, Form
from models.bits import FORMAT_NAMES, GROUP, FormatName
from models.formats import FORMATS, Input
from models.rows import Rows

each_entry = pytest.mark.parametrize(("name", "form"), TABLE, ids=[f"{name}-{form.name}" for name, form in TABLE])
ROWS = 150


def example(name: FormatName, groups: int, seed: int) -> tuple[Rows, Input]:
    """Strided, as up and down of a pack are."""
    generator = torch.Generator().manual_seed(seed)
    records = Rows.encode(name, torch.randn(ROWS, groups * GROUP, generator=generator)).records()
    beside = torch.cat([records, records.flip(0)], dim=1)
    x = FORMATS[name].input(torch.randn(1, groups * GROUP, generator=generator))
    return Rows.view(name, groups * GROUP, beside[:, : records.shape[1]]), x


def holds(form: Form, rows: Rows, x: Input, which: Tensor) -> None:
    weights, values = rows.decode().double()[which], x.decode().double()[0]
    got, wanted, terms = form.compute(rows, x, which), form.wanted(weights, values), form.wanted(weights.abs(), values.abs())
    assert got.shape == wanted.shape
    if got.numel() > 0:
        assert (got.double() - wanted).abs().max() <= 1e-6 * terms.max()


@each_entry
@settings(max_examples=15, deadline=None)
@given(groups=st.integers(1, 40), seed=st.integers(0, 99), count=st.integers(0, ROWS))
def test_any_rows_of_any_width(name: FormatName, form: Form, groups: int, seed: int, count: int) -> None:
    """None, one, some in any order, all."""
    rows, x = example(name, groups, seed)
    holds(form, rows, x, torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed))[:count])


@each_entry
def test_the_rows_that_the_benchmark_reads(name: FormatName, form: Form) -> None:
    rows, x = example(name, 27, 0)
    which = form.chosen(len(rows))
    assert 0 < len(which) <= len(rows) * min(1, 2 * form.density)
    holds(form, rows, x, which)
    assert torch.equal(form.compute(rows, x, which), form.compute(rows, x, which))


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_the_benchmarks_rows_are_its_formats(name: FormatName) -> None:
    rows = kernels.rows_over(torch.empty(100 * FORMATS[name].row_bytes(64), dtype=torch.uint8), name, 64)
    assert len(rows) == 100
    assert torch.equal(rows.decode()[:36], rows.decode()[64:])
