"""Turns are taken fairly, and speeds and shares are what their names say."""

import pytest

from benchmarks import contest
from benchmarks.contest import Lane, Measured, Run, Task, play


class Diary:
    """A contender, and a probe, that write down when they are called."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def run(self, task: Task) -> Run:
        self.lines.append(task.mode)
        return Run(0.5, (0.1, 0.2, 0.9))

    def probe(self) -> float:
        self.lines.append("probe")
        return float(self.lines.count("probe"))


def test_runs_are_interleaved_with_a_probe_on_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "SETTLE_SECONDS", 0.0)
    diary = Diary()
    lanes = [Lane(name, diary, Task(10, 3, mode=name)) for name in ("us", "them")]
    found = play(lanes, 2, diary.probe)
    assert diary.lines == "probe us probe them probe us probe them probe".split()
    assert [each.roofline for each in found["us"]] == [1.5, 3.5]
    assert [each.roofline for each in found["them"]] == [2.5, 4.5]


def test_speeds_are_of_all_sequences_at_the_median_step() -> None:
    measured = Measured(Task(10, 3, sequences=4), Run(0.5, (0.1, 0.2, 0.9)), roofline=1000.0)
    assert measured.decode_speed == pytest.approx(20.0)
    assert measured.prompt_speed == pytest.approx(20.0)
    assert measured.share(50) == pytest.approx(0.25)
