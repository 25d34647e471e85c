"""Every block type decodes as the gguf package decodes it, and what we call exact is."""

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.bits import FormatName
from models.checkpoint.gguf_blocks import DECODERS, EXACT, OWN, decode, rows_of
from models.checkpoint.gguf_types import REFUSED, TYPES, BlockType
from models.rows import Rows

BY_NAME = {kind.name: kind for kind in TYPES.values()}
NEEDED = set("F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K".split())


def random_rows(kind: BlockType, rows: int, blocks: int, seed: int) -> Tensor:
    """uint8 [rows, blocks · nbytes]: any bytes at all, so NaN and infinite scales too."""
    data = np.random.default_rng(seed).integers(0, 256, (rows, blocks * kind.nbytes), dtype=np.uint8)
    return torch.from_numpy(data)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", BY_NAME)
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(0, 5), blocks=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_any_bytes_decode_as_the_package_decodes_them(name: str, rows: int, blocks: int, seed: int) -> None:
    data = random_rows(BY_NAME[name], rows, blocks, seed)
    wanted = dequantize(data.numpy(), gguf.GGMLQuantizationType[name]) if rows else np.zeros((0, blocks * BY_NAME[name].weights))
    decoded = decode(BY_NAME[name], data)
    assert decoded.dtype == torch.float32
    assert np.array_equal(decoded.numpy(), wanted, equal_nan=True)


def test_every_type_of_the_issue_is_there_and_the_sizes_are_the_packages() -> None:
    assert NEEDED <= set(DECODERS) == set(BY_NAME)
    for number, kind in TYPES.items():
        assert gguf.GGMLQuantizationType(number).name == kind.name
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)] == (kind.weights, kind.nbytes)
    for number, name in REFUSED.items():
        assert gguf.GGMLQuantizationType(number).name == name


def test_only_the_rarer_types_are_left_to_the_package() -> None:
    assert set(DECODERS) - set(OWN) == {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}


@pytest.mark.parametrize(("type_name", "format_name"), EXACT)
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 5), blocks=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_rows_taken_over_hold_the_numbers_of_the_file(type_name: str, format_name: FormatName, rows: int, blocks: int, seed: int) -> None:
    data = random_rows(BY_NAME[type_name], rows, blocks, seed)
    taken = rows_of(BY_NAME[type_name], data, format_name)
    assert taken is not None
    assert (taken.n, taken.k, taken.format.name) == (rows, 32 * blocks, format_name)
    assert torch.equal(taken.decode().nan_to_num(7.0), decode(BY_NAME[type_name], data).nan_to_num(7.0))


@pytest.mark.parametrize(("type_name", "format_name"), [("Q8_0", "int8"), ("Q4_0", "int4")])
def test_q8_0_and_q4_0_are_our_formats_to_the_bit(type_name: str, format_name: FormatName) -> None:
    """The package's encoder and ours give the same planes for the same weights."""
    weights = torch.randn(16, 256, generator=torch.Generator().manual_seed(0))
    data = torch.from_numpy(quantize(weights.numpy(), gguf.GGMLQuantizationType[type_name]))
    taken = rows_of(BY_NAME[type_name], data, format_name)
    assert taken is not None
    ours = Rows.encode(format_name, weights)
    assert all(torch.equal(one, other) for one, other in zip(taken.planes, ours.planes, strict=True))


def test_where_a_format_has_no_such_rows_there_are_none() -> None:
    assert rows_of(BY_NAME["Q8_0"], random_rows(BY_NAME["Q8_0"], 2, 1, 0), "int4") is None
    assert rows_of(BY_NAME["Q4_K"], random_rows(BY_NAME["Q4_K"], 2, 1, 0), "int8") is None
