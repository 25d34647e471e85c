"""Blocks grow, and a bound on time is kept. The clock is a number."""

from profiles.pace import BLOCK_TOKENS, FIRST_TOKENS, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def granted(max_seconds: float | None, tokens_per_second: float, blocks: int) -> tuple[list[int], float]:
    """What is granted to a worker of that speed, and when it stops."""
    clock = Clock()
    grants: list[int] = []
    pace = Pace(max_seconds, clock)
    while len(grants) < blocks and (tokens := pace.grant()):
        grants.append(tokens)
        clock.now += tokens / tokens_per_second
    return grants, clock.now


def test_blocks_double_up_to_a_bound() -> None:
    grants, _ = granted(None, 100.0, 6)
    assert grants == [512, 1024, 2048, 4096, 8192, 8192]
    assert (FIRST_TOKENS, BLOCK_TOKENS) == (512, 8192)


def test_a_bound_on_time_is_used_up_and_kept() -> None:
    grants, ended = granted(120.0, 1000.0, 1000)
    assert 118.0 < ended <= 120.0
    assert sum(grants) == round(ended * 1000)


def test_a_machine_too_slow_for_anything_still_does_one_block() -> None:
    grants, ended = granted(1.0, 5.0, 10)
    assert grants == [FIRST_TOKENS]
    assert ended > 1.0
