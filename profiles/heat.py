"""How uneven firings are, and how stable: arithmetic on counts, a row at a time. Knows no model and no file. Torch-free."""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.uint32]


def skew_of(counts: Counts, share: float) -> NDArray[np.float64]:
    """counts [R, N] -> float64 [R]: the smallest share of a row's neurons that makes `share` of its firings; NaN without any."""
    covered = cumulative(counts)
    return np.where(counts.any(axis=1), ((covered < share).sum(axis=1) + 1) / counts.shape[1], np.nan)


def overlap_of(first: Counts, second: Counts, share: float) -> NDArray[np.float64]:
    """counts [R, N] twice -> float64 [R]: how much of the hottest `share` of neurons both have; NaN where one has no firings."""
    size = hot_size(first.shape[1], share)
    pairs = zip(hottest_first(first)[:, :size], hottest_first(second)[:, :size], strict=True)
    common = np.array([len(np.intersect1d(one, two)) / size for one, two in pairs])
    return np.where(first.any(axis=1) & second.any(axis=1), common, np.nan)


def coverage_of(first: Counts, second: Counts, share: float) -> NDArray[np.float64]:
    """counts [R, N] twice -> float64 [R]: share of the firings in `second` of the neurons hottest in `first`; NaN as above."""
    hot = hottest_first(first)[:, : hot_size(first.shape[1], share)]
    served = np.take_along_axis(second, hot, axis=1).sum(axis=1, dtype=np.float64)
    total = second.sum(axis=1, dtype=np.float64)
    return np.where(first.any(axis=1) & (total > 0), served / np.maximum(total, 1.0), np.nan)


def cumulative(counts: Counts) -> NDArray[np.float64]:
    """counts [R, N] -> float64 [R, N]: share of a row's firings that its 1, 2, … N hottest neurons make."""
    summed = np.cumsum(-np.sort(-counts.astype(np.float64), axis=1), axis=1)
    return summed / np.maximum(summed[:, -1:], 1.0)


def hottest_first(counts: Counts) -> NDArray[np.int64]:
    """counts [R, N] -> int64 [R, N]: each row's neurons from hottest to coldest; ties by number."""
    return np.argsort(-counts.astype(np.int64), axis=1, kind="stable")


def hot_size(n_neurons: int, share: float) -> int:
    """How many neurons `share` of them is; at least one."""
    return max(1, round(share * n_neurons))
