"""Which cut of each layer takes the least time, when all cuts together must lie within a budget. Knows no models.

    minimise    Σ_l  seconds[l, j_l]
    such that   least ≤ Σ_l sizes[j_l] ≤ most            j_l: which of the cuts sizes[0] < sizes[1] < … layer l takes

Solved exactly by dynamic programming over the total, whatever the tables look like; nothing need be convex or monotone:

    best_0(0) = 0;    best_{l+1}(c) = min_j  best_l(c − sizes[j]) + seconds[l, j];    answer: min_{least ≤ c ≤ most} best_L(c)

One NumPy pass per cut and layer, over totals in units of the sizes' greatest common divisor: 80 layers of 448 groups take
seconds and 25 MB. Cuts that share no divisor (a layer whose last group is odd) cost up to 64 times that.
"""

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Solution:
    """`choice` [L]: the cut of each layer, empty when infeasible. `gap` is what a better answer could still gain: nothing."""

    status: Literal["optimal", "infeasible"]
    choice: tuple[int, ...]
    objective: float  # Σ seconds of the chosen cuts
    gap: float
    solve_seconds: float


def solve(seconds: Floats, sizes: Ints, *, least: int, most: int) -> Solution:
    """seconds [L, J], sizes [J] ascending from 0 -> the cheapest cuts with least ≤ Σ sizes ≤ most; of equals, the smallest total."""
    assert seconds.shape[1] == len(sizes)
    assert sizes[0] == 0
    assert all(small < large for small, large in pairwise(sizes))
    assert not np.isnan(seconds).any()
    started = time.perf_counter()
    choice = _unbound(seconds, sizes, least, most)
    if choice is None:
        choice = _programmed(seconds, sizes, least, most)
    elapsed = time.perf_counter() - started
    if choice is None:
        return Solution("infeasible", (), float("inf"), 0.0, elapsed)
    objective = float(seconds[np.arange(len(choice)), choice].sum())
    return Solution("optimal", tuple(choice), objective, 0.0, elapsed)


def _unbound(seconds: Floats, sizes: Ints, least: int, most: int) -> list[int] | None:
    """Each layer's own best cut, when those happen to respect the budget: then there is nothing to solve."""
    free = seconds.argmin(axis=1)
    return [int(cut) for cut in free] if least <= int(sizes[free].sum()) <= most else None


def _programmed(seconds: Floats, sizes: Ints, least: int, most: int) -> list[int] | None:
    unit = int(np.gcd.reduce(sizes)) or 1
    steps = sizes // unit
    first, last = -(-max(least, 0) // unit), min(most // unit, int(steps[-1]) * len(seconds))
    if first > last:
        return None
    tables = [np.zeros(1)]
    for costs in seconds:
        tables.append(_extended(tables[-1], costs, steps, last + 1))
    window = tables[-1][first:]
    if not np.isfinite(window).any():
        return None
    return _walk_back(tables, seconds, steps, first + int(window.argmin()))


def _extended(best: Floats, costs: Floats, steps: Ints, width: int) -> Floats:
    """best_{l+1} from best_l: float64, as long as its largest reachable total, at most `width`."""
    longer = np.full(min(width, len(best) + int(steps[-1])), np.inf)
    scratch = np.empty_like(best)
    for step, cost in zip(steps.tolist(), costs.tolist(), strict=True):
        end = min(len(best), len(longer) - step)
        if end <= 0:
            break
        np.add(best[:end], cost, out=scratch[:end])
        np.minimum(longer[step : step + end], scratch[:end], out=longer[step : step + end])
    return longer


def _walk_back(tables: list[Floats], seconds: Floats, steps: Ints, total: int) -> list[int]:
    """The cuts that made `total`, last layer first found."""
    choice = []
    for best, costs in zip(reversed(tables[:-1]), seconds[::-1], strict=True):
        before = total - steps  # [J]
        reachable = (before >= 0) & (before < len(best))
        paths = np.where(reachable, best[np.clip(before, 0, len(best) - 1)] + costs, np.inf)
        choice.append(int(paths.argmin()))
        total = int(before[choice[-1]])
    return choice[::-1]
