"""Rows of weights that formats meet: ordinary ones, zeros, and magnitudes from the subnormal to what float16 scales cannot hold."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from models.bits import GROUP

Weights = NDArray[np.float32]


def rows(smallest: float, largest: float) -> st.SearchStrategy[Weights]:
    """float32 [0…3, 32 · 1…4], each group of magnitudes between the two bounds, or zero."""
    shapes = st.tuples(st.integers(0, 3), st.integers(1, 4).map(lambda groups: groups * GROUP))
    magnitudes = st.floats(smallest, largest, width=32)
    weight = st.one_of(st.just(0.0), magnitudes, magnitudes.map(lambda value: -value))
    return shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=weight, fill=st.just(np.float32(0.0))))


def gaussian(n: int, k: int, seed: int) -> Weights:
    return np.random.default_rng(seed).standard_normal((n, k)).astype(np.float32)


def in_groups(weights: Weights) -> Weights:
    """[n, k] -> [n, k/32, 32]."""
    return weights.reshape(len(weights), weights.shape[1] // GROUP, GROUP)
