"""What the benchmark of the plan makes of numbers; nothing is measured here."""

import pytest

from benchmarks.activity import Activity
from benchmarks.contest import Task
from benchmarks.plan import Round, figures, predicted_seconds, scaled, scaled_rate
from tests.placement.makers import CPU, SPEC, build_cpu, manifest_of

TASK = Task(prompt=64, tokens=32)
SILENT, HALF = Activity(passed=0.0, fired=0.0), Activity(passed=0.5, fired=0.5)


def test_firing_neurons_cost_their_rows_of_up_and_down() -> None:
    sizes = manifest_of().sizes
    more = predicted_seconds(manifest_of(), HALF, CPU, TASK) - predicted_seconds(manifest_of(), SILENT, CPU, TASK)
    assert more == pytest.approx(SPEC.n_layers * SPEC.n_neurons * 0.5 * (sizes.up_row + sizes.down_row) / 5e9)


def test_the_tokens_so_far_are_read_too() -> None:
    longer = Task(prompt=164, tokens=32)
    more = predicted_seconds(manifest_of(), HALF, CPU, longer) - predicted_seconds(manifest_of(), HALF, CPU, TASK)
    assert more == pytest.approx(100 * SPEC.kv_bytes_per_token() / 10e9)


@pytest.mark.parametrize(
    ("memory", "cached", "drift", "found"),
    [(10.0, 30.0, 1.5, 15.0), (10.0, 30.0, 0.5, 5.0), (10.0, 12.0, 1.5, 12.0), (10.0, 8.0, 1.5, 10.0)],
)
def test_a_faster_memory_helps_until_computing_is_the_bound(memory: float, cached: float, drift: float, found: float) -> None:
    assert scaled_rate(memory, cached, drift) == found


def test_a_slower_memory_leaves_the_caches_as_they_were() -> None:
    width = scaled(build_cpu(), 0.5).formats[0].widths[0]
    assert (width.memory.streaming, width.cached.streaming) == (5e9, 10e9)
    assert width.memory.gathering == (2.5e9,) * 4


def test_the_ratio_over_one_promises_too_much() -> None:
    found = figures([Round(predicted=0.1, measured=0.2, bandwidth=3e10, drift=1.0), Round(0.1, 0.1, 2e10, 1.0)])
    assert found["ratio"] == 1.5
    assert found["ratio_range"] == [1.0, 2.0]
    assert found["measured_tokens_per_second"] == 7.5
