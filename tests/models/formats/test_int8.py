"""int8 is GGUF's Q8_0: the same scales and quants bit for bit, in planes instead of blocks."""

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from hypothesis import given

from models.bits import GROUP
from models.formats import INT8
from tests.models.formats.weights import Weights, gaussian, in_groups, rows


def assert_same_as_gguf(weights: Weights) -> None:
    quants, scales = INT8.encode(torch.from_numpy(weights))
    n = len(weights)
    scale_bytes, quant_bytes = scales.view(torch.uint8).numpy().reshape(n, -1, 2), quants.view(torch.uint8).numpy().reshape(n, -1, GROUP)
    theirs = quantize(weights, gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(np.concatenate((scale_bytes, quant_bytes), axis=2).reshape(n, -1), theirs)
    np.testing.assert_array_equal(INT8.decode((quants, scales)).numpy(), dequantize(theirs, gguf.GGMLQuantizationType.Q8_0))


@given(rows(2.0**-16, 1000.0))
def test_bits_are_those_of_gguf(weights: Weights) -> None:
    if len(weights):
        assert_same_as_gguf(weights)
    else:
        assert INT8.decode(INT8.encode(torch.from_numpy(weights))).shape == weights.shape


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_bits_of_many_ordinary_weights_are_those_of_gguf(scale: float) -> None:
    assert_same_as_gguf(gaussian(64, 256, seed=1) * np.float32(scale))


def test_bits_are_those_of_gguf_on_ties_between_quants() -> None:
    """Halves of the scale, where rounding goes away from zero."""
    halves = np.arange(-254, 254, dtype=np.float32).reshape(-1, 4) / 2
    assert_same_as_gguf(np.concatenate((halves, np.full((len(halves), GROUP - 4), 127.0, np.float32)), axis=1))


def test_bits_are_those_of_gguf_for_many_zeros() -> None:
    """A scale of -0 would do as well, but be other bits."""
    assert_same_as_gguf(np.zeros((16, 256), dtype=np.float32))


@given(rows(0.0, 2.0**-30))
def test_what_is_too_small_for_a_scale_becomes_zero(weights: Weights) -> None:
    assert not INT8.decode(INT8.encode(torch.from_numpy(weights))).any()


@given(rows(0.0, 1000.0))
def test_error_is_at_most_half_a_step(weights: Weights) -> None:
    """A step is max / 127, and the float16 scale itself is off by one part in 2048."""
    decoded = INT8.decode(INT8.encode(torch.from_numpy(weights))).numpy()
    most = np.abs(in_groups(weights)).max(axis=2, keepdims=True)
    error = np.abs(in_groups(decoded - weights))
    assert (error <= most * (0.5 / 127 + 1 / 2048) * 1.01 + 127 * 2.0**-24).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_group_that_cannot_be_stored_cannot_pass_unseen(bad: float) -> None:
    weights = torch.from_numpy(gaussian(2, 96, seed=2))
    weights[1, 40] = bad
    decoded = INT8.decode(INT8.encode(weights))
    assert not decoded[1, 32:64].isfinite().all()
    assert decoded[0].isfinite().all()
    assert decoded[1, :32].isfinite().all()
    assert decoded[1, 64:].isfinite().all()
