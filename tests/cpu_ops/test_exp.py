"""The exponential against float64, over its whole range and where it ends."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from cpu_ops.kernels.compile import exact_inner
from cpu_ops.kernels.exp import LANES, LEAST, exp_all
from cpu_ops.kernels.rows import address_of


@exact_inner
def exponentials(x: NDArray[np.float32], shift: np.float32) -> np.float32:
    """In place; gives the sum."""
    total: np.float32 = exp_all(address_of(x), len(x) // LANES, shift)
    return total


def error_in_last_places(x: NDArray[np.float32]) -> float:
    """The greatest distance from e^x, in units of the last place of e^x."""
    exact, got = np.exp(x.astype(np.float64)), x.copy()
    exponentials(got, np.float32(0))
    return float((np.abs(got.astype(np.float64) - exact) / np.spacing(exact.astype(np.float32))).max())


def test_within_one_unit_in_the_last_place() -> None:
    """Four million arguments evenly over the range, and every size down to the smallest."""
    even = np.linspace(LEAST, 88, 2**22, dtype=np.float32)
    sizes = -np.geomspace(1e-38, -LEAST, 2**20).astype(np.float32)
    assert error_in_last_places(even) < 1
    assert error_in_last_places(np.maximum(sizes, np.float32(LEAST))) < 1


def test_the_ends() -> None:
    x = np.resize(np.array([0, -0.0, LEAST - 0.01, -1e30, -math.inf, math.nan, -1e-45, -math.inf], np.float32), LANES)
    exponentials(x, np.float32(0))
    np.testing.assert_array_equal(x, np.resize(np.array([1, 1, 0, 0, 0, math.nan, 1, 0], np.float32), LANES))


def test_the_sum() -> None:
    x = np.random.default_rng(0).normal(size=256).astype(np.float32) * 10
    expected = np.exp(x.astype(np.float64) - 40).sum()
    assert exponentials(x, np.float32(40)) == pytest.approx(expected, rel=1e-5)
