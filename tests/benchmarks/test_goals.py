"""Runs become rows: shares of what was probed, ratios within a round."""

from pathlib import Path

import pytest

from benchmarks.activity import EVERYTHING, Activity
from benchmarks.contest import Measured, Run, Task
from benchmarks.goals import GOALS, rows_of
from benchmarks.ours import Facts
from benchmarks.shapes import SHAPES
from benchmarks.synthetic import build
from tests.benchmarks.test_synthetic import SMALL


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    folder: Path = tmp_path_factory.mktemp("goals")
    return Facts(build("small", SMALL, folder).manifest, {"dense": EVERYTHING, "exact": Activity(0.1, 0.1)}, predictor_bytes=0)


def measured(mode: str, *step_seconds: float) -> list[Measured]:
    return [Measured(Task(64, 3, mode=mode), Run(1.0, (seconds,)), roofline=1e9) for seconds in step_seconds]


def test_a_ratio_is_taken_round_by_round(facts: Facts) -> None:
    found = {"exact": measured("exact", 0.1, 0.2), "peer": measured("dense", 0.2, 0.1)}
    share, ratio = rows_of("7b", found, facts, seconds=5.0)
    assert ratio.values == pytest.approx((2.0, 0.5))
    assert ratio.goal == GOALS["7b", "exact"]
    assert share.values == pytest.approx([facts.token_bytes(found["exact"][0].task) / seconds / 1e9 for seconds in (0.1, 0.2)])
    assert not share.met


def test_dense_is_held_against_the_roofline_alone(facts: Facts) -> None:
    (row,) = rows_of("7b", {"dense": measured("dense", 0.1), "peer": measured("dense", 0.1)}, facts, seconds=5.0)
    assert row.what == "dense decode, share of bandwidth"


def test_goals_are_of_shapes_there_are() -> None:
    assert {shape for shape, _ in GOALS} <= set(SHAPES)
