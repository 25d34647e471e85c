"""The softmax of a tile beside NumPy's float64; a query's bits whatever its tile."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cpu_ops.kernels import pairs, softmax
from cpu_ops.kernels.compile import exact_inner
from cpu_ops.kernels.rows import address_of, alive

N = 96
Floats = NDArray[np.float32]


@exact_inner
def softened(weights: Floats, tile: int, lows: NDArray[np.int32], highs: NDArray[np.int32], headers: Floats) -> None:
    """All N positions of weights [N · tile], in place; headers [tile, 2]."""
    at, low_at, high_at, header_at = address_of(weights), address_of(lows), address_of(highs), address_of(headers)
    softmax.soften(tile, at, 0, N, low_at, high_at, header_at, 8)
    alive(weights)
    alive(lows)
    alive(highs)
    alive(headers)


@exact_inner
def lanes() -> int:
    found: int = pairs.lanes()
    return found


def of_tile(scores: Floats, lows: list[int], highs: list[int]) -> tuple[Floats, Floats]:
    """scores [tile, N] -> weights [tile, N], headers [tile, 2]."""
    tile = len(scores)
    rows = lanes() // tile
    laid = scores.reshape(tile, N // rows, rows).swapaxes(0, 1).copy().reshape(-1)
    headers = np.zeros((tile, 2), np.float32)
    softened(laid, tile, np.array(lows, np.int32), np.array(highs, np.int32), headers)
    return laid.reshape(N // rows, tile, rows).swapaxes(0, 1).reshape(tile, N), headers


LOWS, HIGHS = [0, 3, 0, 40, 15, 0, 95, 16], [96, 90, 1, 41, 17, 50, 96, 32]


@pytest.mark.parametrize("tile", [1, 4, 8])
def test_what_a_query_sees_and_what_it_does_not(tile: int) -> None:
    if 2 * tile > lanes():
        pytest.skip("no such tile")
    scores = np.random.default_rng(0).normal(size=(8, N)).astype(np.float32) * 10
    weights, headers = of_tile(scores[:tile], LOWS[:tile], HIGHS[:tile])
    alone = [of_tile(scores[i : i + 1], LOWS[i : i + 1], HIGHS[i : i + 1]) for i in range(tile)]
    for i, (low, high) in enumerate(zip(LOWS[:tile], HIGHS[:tile], strict=True)):
        seen = scores[i, low:high].astype(np.float64)
        expected = np.zeros(N)
        expected[low:high] = np.exp(seen - seen.max())
        np.testing.assert_allclose(weights[i], expected, rtol=1e-5)
        assert headers[i, 0] == scores[i, low:high].max()
        assert headers[i, 1] == pytest.approx(expected.sum(), rel=1e-5)
        np.testing.assert_array_equal(weights[i], alone[i][0][0])
        np.testing.assert_array_equal(headers[i], alone[i][1][0])


def test_nan_is_no_greatest() -> None:
    scores = np.full((1, N), -5, np.float32)
    scores[0, 7], scores[0, 8] = np.nan, -3
    weights, headers = of_tile(scores, [0], [N])
    assert headers[0, 0] == -3
    assert np.isnan(headers[0, 1])
    assert np.isnan(weights).sum() == 1
