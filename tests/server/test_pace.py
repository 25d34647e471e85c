"""How long a chunk of prompts may become, on machines that are two numbers."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from server.pace import LEARNT_FROM, Pace


def settle(pace: Pace, fixed: float, each: float, bound: float, steps: int = 12) -> list[float]:
    """Seconds of each step on a machine that takes `fixed` + `each` · tokens."""
    seconds = []
    for _ in range(steps):
        tokens = pace.tokens(bound)
        seconds.append(fixed + each * tokens)
        pace.took(tokens, seconds[-1])
    return seconds


def test_before_anything_was_measured_a_step_is_as_large_as_it_may_be() -> None:
    assert Pace(256).tokens(0.2) == 256


@given(fixed=st.floats(0, 0.1), each=st.floats(1e-6, 0.1))
def test_it_settles_below_the_bound_and_close_to_it(fixed: float, each: float) -> None:
    pace = Pace(256, 0.2)
    pace.took(256, fixed + 256 * each)
    seconds = settle(pace, fixed, each, 0.2)
    assert seconds[0] <= 0.2 + fixed + each
    assert seconds[-1] <= max(0.2, fixed + each) + 1e-9
    tokens = pace.tokens(0.2)
    assert tokens == 256 or tokens < 2 * LEARNT_FROM or seconds[-1] >= 0.18


def test_a_prompt_that_gets_slower_as_it_grows_gets_shorter_steps() -> None:
    pace = Pace(256, 0.2)
    sizes = []
    for depth in range(1, 9):
        sizes.append(pace.tokens(0.2))
        pace.took(sizes[-1], 0.001 * depth * sizes[-1])
    assert all(later <= earlier for earlier, later in pairwise(sizes))
    assert sizes[-1] < sizes[1] / 3


def test_a_few_tokens_say_nothing_about_many_unless_they_are_slow() -> None:
    pace = Pace(256, 0.2)
    pace.took(100, 0.1)
    pace.took(1, 0.05)
    assert pace.tokens(0.2) == 200
    pace.took(4, 2.0)
    assert pace.tokens(0.2) == 1
