"""The kernel gives the bits of `quantise_input`, whatever it is given."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import cpu_ops
from models.bits import FORMAT_NAMES, FormatName
from models.formats import FORMATS

ANY_FLOAT32 = st.integers(0, 2**32 - 1)  # as bits: subnormals, infinities and every NaN
EXTREMES = [0.0, -0.0, 1e-45, 3e-37, 3.8e-37, 1.2e-38, 3.4e38, float("inf"), -float("inf"), float("nan"), 127.0, 63.5, 0.5, 1.5, 2.5, -2.5]


def assert_same_bits(x: Tensor, name: FormatName = "int4") -> None:
    got, wanted = cpu_ops.input(FORMATS[name], x), FORMATS[name].input(x)
    assert torch.equal(got.values, wanted.values)
    if wanted.scales is None:
        assert got.scales is None
    else:
        assert got.scales is not None
        torch.testing.assert_close(got.scales, wanted.scales, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("shape", [(0, 64), (1, 32), (3, 96), (16, 4096), (40, 2048)])
def test_the_bits_of_the_definition(name: FormatName, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randn(shape, generator=generator).mul(8).exp()
    assert_same_bits(torch.randn(shape, generator=generator) * sizes, name)


@settings(max_examples=200, deadline=None)
@given(st.lists(ANY_FLOAT32, min_size=32, max_size=32))
def test_any_bits_at_all(bits: list[int]) -> None:
    assert_same_bits(torch.tensor(bits, dtype=torch.uint32).view(torch.float32)[None])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(EXTREMES), min_size=64, max_size=64))
def test_extremes_together(values: list[float]) -> None:
    """Zeros, subnormals whose inverse overflows, infinities, and halves that round to even (127 is the greatest: a step is 1)."""
    assert_same_bits(torch.tensor([values]))


def test_rows_may_be_strided() -> None:
    assert_same_bits(torch.randn(6, 128, generator=torch.Generator().manual_seed(0))[::2, 64:])
