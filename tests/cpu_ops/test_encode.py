"""The kernels give the bits of the formats, whatever they are given, and those of the gguf package."""

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import quantize
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cpu_ops.encode import encode, turned
from models.bits import FORMAT_NAMES, GROUP, FormatName
from models.pack_files import encode_plainly

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
ANY_FLOAT32 = st.integers(0, 2**32 - 1)  # as bits: subnormals, infinities and every NaN
each_grouped = pytest.mark.parametrize("name", ["int4", "int8"])
each_type = pytest.mark.parametrize("dtype", FLOATS)


def weights(n: int, k: int, seed: int = 0) -> Tensor:
    """Of all magnitudes; groups of zeros, of minus zeros, and of few whole numbers, of which the first of the largest gives the sign."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(n, k, generator=generator) * torch.randn(n, 1, generator=generator).mul(3).exp()
    made[::5, :GROUP] = 0.0
    made[1::5, :GROUP] = -0.0
    made[2::5] = torch.randint(-4, 5, made[2::5].shape, generator=generator).float()
    return made


@each_type
@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize(("n", "k"), [(0, 32), (1, 32), (3, 96), (40, 2048), (300, 512)])
def test_the_bits_of_the_definition(n: int, k: int, name: FormatName, dtype: torch.dtype) -> None:
    rows = weights(n, k).to(dtype)
    assert torch.equal(encode(name, rows), encode_plainly(name, rows))


@each_type
@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize(("n", "k", "first", "last"), [(50, 64, 3, 40), (16, 32, 0, 16), (7, 96, 6, 7), (300, 32, 10, 266)])
def test_columns_of_a_wider_matrix_are_rows(n: int, k: int, first: int, last: int, name: FormatName, dtype: torch.dtype) -> None:
    wide = weights(n, k).to(dtype).T.contiguous()  # [k, n]
    assert torch.equal(encode(name, wide[:, first:last].T), encode_plainly(name, wide[:, first:last].T.contiguous()))


@each_grouped
def test_rows_may_be_part_of_wider_ones(name: FormatName) -> None:
    part = weights(9, 128)[2:, 32:96]
    assert torch.equal(encode(name, part), encode_plainly(name, part))


@pytest.mark.parametrize(("name", "kind"), [("int4", "Q4_0"), ("int8", "Q8_0")])
def test_the_bits_of_gguf(name: FormatName, kind: str) -> None:
    rows = weights(60, 512, seed=1)
    theirs = quantize(rows.numpy(), gguf.GGMLQuantizationType[kind]).reshape(60, 512 // GROUP, -1)
    scales, quants = theirs[..., :2].reshape(60, -1), theirs[..., 2:].reshape(60, -1)
    np.testing.assert_array_equal(encode(name, rows).numpy(), np.concatenate((quants, scales), axis=1))


@each_grouped
@pytest.mark.parametrize("bad", [float("nan"), -float("inf"), 1e-41, -3e38, 3e-39, 1e-45])
def test_what_no_scale_can_hold_is_what_the_formats_make_of_it(bad: float, name: FormatName) -> None:
    rows = weights(4, 96)
    rows[1, 32:64] = 0.0
    rows[1, 40] = bad
    assert torch.equal(encode(name, rows), encode_plainly(name, rows))


@each_grouped
@given(st.lists(ANY_FLOAT32, min_size=32, max_size=32))
def test_any_bits_at_all(name: FormatName, bits: list[int]) -> None:
    row = torch.tensor(bits, dtype=torch.uint32).view(torch.float32)[None]
    assert torch.equal(encode(name, row), encode_plainly(name, row))


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(FLOATS))
def test_a_matrix_is_turned(n: int, k: int, dtype: torch.dtype) -> None:
    wide = torch.arange(n * k).view(k, n).to(torch.int16 if dtype.itemsize == 2 else torch.int32)
    assert torch.equal(turned(wide.T), wide.T)
    assert turned(wide.T).is_contiguous()
