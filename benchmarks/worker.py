"""A contender in a process of its own, driven over a pipe, so that one side's memory and threads never meet the other's."""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType

from benchmarks.contest import Contender, Run, Task
from models.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Answer:
    """A value, or what went wrong. `idle_cpu_seconds`: of the CPU, used since the last answer, while others measured."""

    value: object
    error: str | None = None
    idle_cpu_seconds: float = 0.0


class Worker:
    """Builds a contender in a fresh process; is one itself. `facts` is what the builder gave beside it."""

    def __init__(self, build: Callable[[], tuple[Contender, object]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, build), daemon=True)
        self.process.start()
        theirs.close()
        self.idle_cpu_seconds = 0.0
        self.facts = self._answer()

    def run(self, task: Task) -> Run:
        self.pipe.send(task)
        run = self._answer()
        assert isinstance(run, Run)
        return run

    def _answer(self) -> object:
        try:
            answer: Answer = self.pipe.recv()
        except EOFError:
            raise Unavailable("a contender's process", "has died; was there enough memory?") from None
        self.idle_cpu_seconds += answer.idle_cpu_seconds
        if answer.error is not None:
            raise Unavailable("a contender", answer.error)
        return answer.value

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Ends the process, and so gives its memory back."""
        self.pipe.close()
        self.process.join()


def serve(pipe: "Connection[Answer, Task]", build: Callable[[], tuple[Contender, object]]) -> None:
    """The other process: answers with facts, then with a run for every task, until the pipe is closed."""
    try:
        contender, facts = build()
        pipe.send(Answer(facts))
        while True:
            idle_from = time.process_time()
            task = pipe.recv()
            idle = time.process_time() - idle_from
            pipe.send(Answer(contender.run(task), idle_cpu_seconds=idle))
    except EOFError:
        return
    except Exception as error:
        pipe.send(Answer(None, f"{type(error).__name__}: {error}"))
