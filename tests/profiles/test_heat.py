"""Skew, overlap and coverage, against numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from profiles.heat import Counts, coverage_of, cumulative, hot_size, hottest_first, overlap_of, skew_of

counts = arrays(np.uint32, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1000))


def row(*values: int) -> Counts:
    return np.array([values], np.uint32)


def test_skew_is_the_smallest_share_of_neurons_that_makes_most_firings() -> None:
    fired = row(1, 70, 2, 20, 0, 5, 0, 2, 0, 0)  # 70 of 100, then 90: two of ten neurons make 80
    assert skew_of(fired, 0.8) == pytest.approx([0.2])
    assert skew_of(fired, 0.95) == pytest.approx([0.3])
    assert skew_of(row(5, 5, 5, 5, 5), 0.8) == pytest.approx([0.8])


def test_overlap_compares_the_hottest_of_both_halves() -> None:
    first, second = row(9, 8, 7, 6, 1, 1, 1, 1, 1, 1), row(9, 8, 1, 1, 7, 6, 1, 1, 1, 1)
    assert overlap_of(first, second, 0.2) == pytest.approx([1.0])  # {0, 1} and {0, 1}
    assert overlap_of(first, second, 0.4) == pytest.approx([0.5])  # {0, 1, 2, 3} and {0, 1, 4, 5}


def test_coverage_serves_the_second_half_with_the_order_of_the_first() -> None:
    first, second = row(9, 8, 1, 1), row(10, 0, 30, 60)
    assert coverage_of(first, second, 0.25) == pytest.approx([0.1])
    assert coverage_of(first, second, 0.5) == pytest.approx([0.1])
    assert coverage_of(first, second, 0.75) == pytest.approx([0.4])  # ties by number: neuron 2 before neuron 3


def test_nothing_seen_is_not_a_number() -> None:
    silent, heard = row(0, 0), row(1, 0)
    assert np.isnan(skew_of(silent, 0.8))
    assert np.isnan(overlap_of(silent, heard, 0.2))
    assert np.isnan(overlap_of(heard, silent, 0.2))
    assert np.isnan(coverage_of(heard, silent, 0.2))
    assert np.isnan(coverage_of(silent, heard, 0.2))


def test_a_share_is_at_least_one_neuron() -> None:
    assert [hot_size(n, 0.2) for n in (1, 2, 5, 1024)] == [1, 1, 1, 205]


@given(counts)
def test_curves_rise_to_one_and_never_sag(fired: Counts) -> None:
    curves = cumulative(fired)
    assert (np.diff(curves, axis=1) >= 0).all()
    assert np.allclose(curves[:, -1], fired.any(axis=1))
    even = np.arange(1, fired.shape[1] + 1) / fired.shape[1]
    assert (curves[fired.any(axis=1)] + 1e-9 >= even).all()


@given(counts)
def test_the_order_is_a_permutation_from_hot_to_cold(fired: Counts) -> None:
    order = hottest_first(fired)
    assert (np.sort(order, axis=1) == np.arange(fired.shape[1])).all()
    assert (np.diff(np.take_along_axis(fired.astype(np.int64), order, axis=1), axis=1) <= 0).all()


@given(counts)
def test_a_half_agrees_with_itself(fired: Counts) -> None:
    seen = fired.any(axis=1)
    assert (overlap_of(fired, fired, 0.3)[seen] == 1.0).all()
    hot = hot_size(fired.shape[1], 0.3)
    assert np.allclose(coverage_of(fired, fired, 0.3)[seen], cumulative(fired)[seen, hot - 1])
