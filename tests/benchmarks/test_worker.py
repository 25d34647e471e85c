"""A contender in another process answers; what goes wrong there is said here."""

import os
from functools import partial

import pytest

from benchmarks.contest import Contender, Run, Task
from benchmarks.worker import Worker
from models.errors import Unavailable


class Echo:
    def run(self, task: Task) -> Run:
        if task.mode == "die":
            os._exit(1)
        return Run(1 / task.prompt, (0.5,) * task.tokens)


def build_echo(fact: str) -> tuple[Contender, object]:
    if fact == "broken":
        raise ValueError("no such thing")
    return Echo(), fact


def test_it_gives_its_facts_and_runs_tasks_until_it_dies() -> None:
    with Worker(partial(build_echo, "built")) as worker:
        assert worker.facts == "built"
        assert worker.run(Task(4, 2)) == Run(0.25, (0.5, 0.5))
        assert 0.0 <= worker.idle_cpu_seconds < 0.5
        with pytest.raises(Unavailable, match="has died"):
            worker.run(Task(1, mode="die"))


def test_an_error_there_is_an_error_here() -> None:
    with pytest.raises(Unavailable, match="ValueError: no such thing"):
        Worker(partial(build_echo, "broken"))
