"""The solver against brute force, against HiGHS, and against the sort it replaces."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from placement.cost import cuts_of
from placement.solver import Floats, Ints, solve


def brute_force(seconds: Floats, sizes: Ints, least: int, most: int) -> float:
    """The least Σ seconds over every combination of cuts, inf when none fits."""
    layers = range(len(seconds))
    fitting = (cuts for cuts in product(range(len(sizes)), repeat=len(seconds)) if least <= sum(sizes[cut] for cut in cuts) <= most)
    return min((float(sum(seconds[layer, cuts[layer]] for layer in layers)) for cuts in fitting), default=np.inf)


def highs(seconds: Floats, sizes: Ints, least: int, most: int) -> float:
    """The same as an integer program: one binary per layer and cut, exactly one cut a layer."""
    layers, cuts = seconds.shape
    one_cut = np.kron(np.eye(layers), np.ones(cuts))
    weights = np.tile(sizes, layers)[None, :]
    limits = [LinearConstraint(one_cut, 1, 1), LinearConstraint(weights, least, most)]
    answer = milp(seconds.ravel(), integrality=np.ones(seconds.size), bounds=Bounds(0, 1), constraints=limits, options={"mip_rel_gap": 0})
    assert answer.success
    return float(answer.fun)


@st.composite
def small_problems(draw: st.DrawFn) -> tuple[Floats, Ints, int, int]:
    """Up to four layers of up to 200 neurons, costs with ties and no order at all, any window."""
    sizes = cuts_of(draw(st.integers(1, 200)))
    layers = draw(st.integers(1, 4))
    costs = st.lists(st.integers(0, 9), min_size=len(sizes), max_size=len(sizes))
    seconds = np.array(draw(st.lists(costs, min_size=layers, max_size=layers)), dtype=np.float64)
    total = int(sizes[-1]) * layers
    return seconds, sizes, draw(st.integers(0, total)), draw(st.integers(0, total + 70))


@given(small_problems())
def test_no_combination_of_cuts_is_better(problem: tuple[Floats, Ints, int, int]) -> None:
    seconds, sizes, least, most = problem
    solution = solve(seconds, sizes, least=least, most=most)
    assert solution.objective == brute_force(seconds, sizes, least, most)
    if solution.status == "optimal":
        assert least <= sum(int(sizes[cut]) for cut in solution.choice) <= most
        assert solution.objective == sum(seconds[layer, cut] for layer, cut in enumerate(solution.choice))
    else:
        assert solution.choice == ()


@pytest.mark.parametrize(("seed", "n", "share"), [(0, 1280, 0.3), (1, 1300, 0.5), (2, 1000, 0.8), (3, 1280, 0.05)])
def test_highs_finds_nothing_better(seed: int, n: int, share: float) -> None:
    sizes = cuts_of(n)
    seconds = np.random.default_rng(seed).random((10, len(sizes)))
    most = int(share * n * 10)
    least = most // 2
    assert solve(seconds, sizes, least=least, most=most).objective == pytest.approx(highs(seconds, sizes, least, most), rel=1e-9)


def test_a_last_group_that_is_smaller_never_breaks_the_budget() -> None:
    """Two layers of 100 neurons: 164 hold one whole layer and a group of the other, 163 do not."""
    sizes = cuts_of(100)
    seconds = np.array([[9.0, 5.0, 3.0], [9.0, 5.0, 4.0]])
    assert solve(seconds, sizes, least=0, most=164).choice == (2, 1)
    assert solve(seconds, sizes, least=0, most=163).choice == (1, 1)


def test_of_equally_fast_cuts_the_smallest_is_taken() -> None:
    seconds = np.ones((3, 4))
    assert solve(seconds, cuts_of(192), least=0, most=10_000).choice == (0, 0, 0)


def test_no_whole_groups_in_the_window_is_infeasible() -> None:
    solution = solve(np.ones((2, 3)), cuts_of(128), least=65, most=127)
    assert (solution.status, solution.choice, solution.objective) == ("infeasible", (), np.inf)


def test_a_model_of_real_size_is_solved_exactly() -> None:
    """80 layers of 28,672 neurons with convex costs, where greedy on marginal gain is exact and serves as the check."""
    sizes = cuts_of(28672)
    gains = -np.sort(-np.random.default_rng(0).random((80, len(sizes) - 1)), axis=1)  # falling: every layer is convex
    seconds = np.concatenate([np.zeros((80, 1)), -np.cumsum(gains, axis=1)], axis=1)
    groups = 12_000
    best_groups = -np.sort(-gains.ravel())[:groups]
    solution = solve(seconds, sizes, least=0, most=groups * 64 + 63)
    assert solution.objective == pytest.approx(-best_groups.sum(), rel=1e-12)
    assert solution.gap == 0.0


def by_frequency(rates: Floats, most: int) -> tuple[int, ...]:
    """PowerInfer's placement as shipped: the groups that fire most, whatever layer they are of. rates [L, groups] falling."""
    chosen = np.argsort(-rates.ravel(), kind="stable")[: most // 64]
    return tuple(int(count) for count in np.bincount(chosen // rates.shape[1], minlength=len(rates)))


def test_it_beats_the_sort_where_a_layer_that_is_all_hot_need_not_wait() -> None:
    """Two like layers and room for one: the sort gives both a half, and both still wait for the CPU; one whole is better."""
    rates = np.tile(np.linspace(0.5, 0.3, 4), (2, 1))
    cold = np.concatenate([np.cumsum(rates[:, ::-1], axis=1)[:, ::-1], np.zeros((2, 1))], axis=1)
    waiting = 1.0  # copies, a wait, entering a parallel region
    seconds = np.where(np.arange(5) < 4, waiting + cold, 0.1)
    sort = by_frequency(rates, 256)
    ours = solve(seconds, cuts_of(256), least=0, most=256)
    assert sort == (2, 2)
    assert sorted(ours.choice) == [0, 4]
    assert ours.objective < sum(seconds[layer, cut] for layer, cut in enumerate(sort)) - 0.5
