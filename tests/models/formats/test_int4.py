"""int4 is GGUF's Q4_0: the same scales and quants bit for bit, in planes instead of blocks."""

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from hypothesis import given

from models.bits import GROUP
from models.formats import INT4
from models.formats.base import BLOCK_WEIGHTS
from tests.models.formats.weights import Weights, gaussian, in_groups, rows


def blocks_of(weights: Weights) -> Weights:
    """uint8 [n, groups, 18]: scale and quants of each group as we encode them, in GGUF's order."""
    quants, scales = INT4.encode(torch.from_numpy(weights))
    n = len(weights)
    return np.concatenate((scales.view(torch.uint8).numpy().reshape(n, -1, 2), quants.numpy().reshape(n, -1, GROUP // 2)), axis=2)


def assert_same_as_gguf(weights: Weights) -> None:
    theirs = quantize(weights, gguf.GGMLQuantizationType.Q4_0)
    np.testing.assert_array_equal(blocks_of(weights).reshape(len(weights), -1), theirs)
    ours = INT4.decode(INT4.encode(torch.from_numpy(weights))).numpy()
    np.testing.assert_array_equal(ours, dequantize(theirs, gguf.GGMLQuantizationType.Q4_0))


@given(rows(2.0**-20, 1000.0))
def test_bits_are_those_of_gguf(weights: Weights) -> None:
    if len(weights):
        assert_same_as_gguf(weights)
    else:
        assert INT4.decode(INT4.encode(torch.from_numpy(weights))).shape == weights.shape


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_bits_of_many_ordinary_weights_are_those_of_gguf(scale: float) -> None:
    assert_same_as_gguf(gaussian(64, 256, seed=1) * np.float32(scale))


def test_bits_are_those_of_gguf_on_ties_between_quants() -> None:
    """Every multiple of a sixteenth of the scale, where rounding decides."""
    grid = np.arange(-128, 128, dtype=np.float32) / 16
    assert_same_as_gguf(np.concatenate((grid, [-8.0] * GROUP)).reshape(GROUP, -1).T.reshape(-1, GROUP).astype(np.float32))


def test_bits_are_those_of_gguf_where_the_extreme_stands_twice_with_both_signs() -> None:
    """Small whole numbers: of -4 and 4 in one group the first makes the scale."""
    assert_same_as_gguf(np.random.default_rng(0).integers(-4, 5, (400, 64)).astype(np.float32))


def test_rows_of_many_blocks_are_encoded_like_each_alone() -> None:
    weights = torch.from_numpy(gaussian(5, 2 * BLOCK_WEIGHTS // 4, seed=3))
    for plane, *alone in zip(INT4.encode(weights), *(INT4.encode(row[None]) for row in weights), strict=True):
        assert torch.equal(plane, torch.cat(alone))


@given(rows(0.0, 2.0**-30))
def test_what_is_too_small_for_a_scale_becomes_zero(weights: Weights) -> None:
    assert not INT4.decode(INT4.encode(torch.from_numpy(weights))).any()


@given(rows(0.0, 1000.0))
def test_error_is_at_most_one_step_where_the_far_end_is_cut_and_half_elsewhere(weights: Weights) -> None:
    """A step is max / 8. The sign of the extreme gets -8 … 7, so its opposite may be one step short."""
    decoded = INT4.decode(INT4.encode(torch.from_numpy(weights))).numpy()
    most = np.abs(in_groups(weights)).max(axis=2, keepdims=True)
    error = np.abs(in_groups(decoded - weights))
    assert (error <= most / 8 * 1.01 + 2.0**-20).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_group_that_cannot_be_stored_cannot_pass_unseen(bad: float) -> None:
    weights = torch.from_numpy(gaussian(2, 96, seed=2))
    weights[1, 40] = bad
    decoded = INT4.decode(INT4.encode(weights))
    assert not decoded[1, 32:64].isfinite().all()
    assert decoded[0].isfinite().all()
    assert decoded[1, :32].isfinite().all()
    assert decoded[1, 64:].isfinite().all()
