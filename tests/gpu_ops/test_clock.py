"""The GPU's clock over a queue that a test can follow: no GPU needed."""

from dataclasses import dataclass

import pytest

from gpu_ops.clock import GpuClock


@dataclass
class Tape:
    """When the GPU comes by each mark, in milliseconds; in the order they are recorded."""

    times: list[float]

    def __call__(self) -> "TapeMark":
        return TapeMark(self)


@dataclass
class TapeMark:
    tape: Tape
    time: float = -1.0

    def record(self) -> None:
        self.time = self.tape.times.pop(0)

    def elapsed_time(self, other: "TapeMark") -> float:
        return other.time - self.time


def test_what_lies_between_running_dry_and_more_work_is_not_work() -> None:
    clock = GpuClock(Tape([0.0, 3.0, 5.0, 6.0, 10.0, 12.0, 100.0, 107.0]))
    clock.begin()
    for _ in range(2):  # two layers: 3 to 5 and 6 to 10 are idle
        clock.mark()
        clock.mark()
    clock.mark()
    clock.settle()
    assert clock.working_seconds == pytest.approx(0.006)
    clock.begin()
    clock.mark()
    clock.settle()
    assert clock.working_seconds == pytest.approx(0.013)


def test_marks_of_a_step_that_failed_are_forgotten() -> None:
    clock = GpuClock(Tape([0.0, 1.0, 50.0, 52.0]))
    clock.begin()
    clock.mark()
    clock.begin()
    clock.mark()
    clock.settle()
    assert clock.working_seconds == pytest.approx(0.002)


def test_waiting_is_added_up_even_when_it_ends_badly() -> None:
    ticks = iter([1.0, 1.5, 10.0, 12.0])
    clock = GpuClock(None, lambda: next(ticks))
    with clock.waiting():
        pass
    with pytest.raises(RuntimeError), clock.waiting():
        raise RuntimeError
    assert clock.waiting_seconds == 2.5


def test_without_a_gpu_there_is_nothing_to_mark() -> None:
    clock = GpuClock(None)
    clock.begin()
    clock.mark()
    clock.settle()
    assert clock.working_seconds == 0.0
