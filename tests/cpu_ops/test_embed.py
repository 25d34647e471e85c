"""Rows looked up by kernels: the values of the definition in torch, and what a wrong index does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cpu_ops
from models.bits import FORMAT_NAMES, FormatName
from models.rows import Rows


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(FORMAT_NAMES), groups=st.integers(1, 40), which=st.lists(st.integers(0, 8), max_size=6))
def test_embed_gives_the_decoded_rows(name: FormatName, groups: int, which: list[int]) -> None:
    rows, index = Rows.encode(name, random(9, 32 * groups)), torch.tensor(which, dtype=torch.int64)
    torch.testing.assert_close(cpu_ops.embed(rows, index), rows[index].decode(), rtol=1e-6, atol=1e-6)


def test_a_prompts_rows_are_looked_up_in_parallel_to_the_same_bits() -> None:
    rows, index = Rows.encode("bf16", random(50, 1024)), torch.arange(100) % 50
    assert torch.equal(cpu_ops.embed(rows, index), rows[index].decode())


@pytest.mark.parametrize("wrong", [-1, 9, 2**62, -(2**62)])
def test_an_index_that_is_no_row_gives_nan_and_spoils_no_other(wrong: int) -> None:
    rows = Rows.encode("int8", random(9, 64))
    out = cpu_ops.embed(rows, torch.tensor([3, wrong]))
    assert torch.equal(out[0], cpu_ops.embed(rows, torch.tensor([3]))[0])
    assert out[1].isnan().all()


def test_take_copies_rows_in_any_order_from_strided_memory() -> None:
    x, index = random(10, 96)[::2, 32:], torch.tensor([4, 0, 0, 3])
    assert torch.equal(cpu_ops.take(x, index), x[index])
    assert cpu_ops.take(x, index[:0]).shape == (0, 64)


def test_indices_of_another_kind_are_not_read_as_int64() -> None:
    rows, index = Rows.encode("int8", random(9, 64)), torch.tensor([1, 2], dtype=torch.int32)
    with pytest.raises(AssertionError, match="int32"):
        cpu_ops.embed(rows, index)
    with pytest.raises(AssertionError, match="int32"):
        cpu_ops.take(random(9, 64), index)
