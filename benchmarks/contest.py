"""Contenders taking turns, every run between two probes of the memory's bandwidth. Knows neither us nor the peer.

Bandwidth on shared machines changes from second to second, so runs are interleaved (A B A B …), a ratio is taken within a
round, and a share is a share of the probes beside the run. Whoever is not running must be idle: its threads asleep.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

SETTLE_SECONDS = 0.05  # OpenMP's threads spin for some milliseconds after their work, then sleep


@dataclass(frozen=True, slots=True)
class Task:
    """Prompts of `prompt` tokens for each of `sequences`, then `tokens` steps that give each sequence a greedy token.

    `mode` is a word of the contender's: which of its ways to compute.
    """

    prompt: int
    tokens: int = 0
    sequences: int = 1
    mode: str = "dense"


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds of the (last) prompt, and of each step after it."""

    prompt_seconds: float
    step_seconds: tuple[float, ...] = ()


class Contender(Protocol):
    def run(self, task: Task) -> Run:
        """Computes a little to wake up, then the task, under a clock."""


@dataclass(frozen=True, slots=True)
class Lane:
    name: str
    contender: Contender
    task: Task


@dataclass(frozen=True, slots=True)
class Measured:
    """A run, what was asked, and bytes per second that probes read before and after it."""

    task: Task
    run: Run
    roofline: float

    @property
    def prompt_speed(self) -> float:
        """Tokens per second."""
        return self.task.prompt / self.run.prompt_seconds

    @property
    def decode_speed(self) -> float:
        """Tokens per second of all sequences together, at the median step."""
        return self.task.sequences / statistics.median(self.run.step_seconds)

    def share(self, token_bytes: int) -> float:
        """Of the probed bandwidth, where a step reads `token_bytes`."""
        return token_bytes * self.decode_speed / self.task.sequences / self.roofline


def play(lanes: Sequence[Lane], rounds: int, probe: Callable[[], float]) -> dict[str, list[Measured]]:
    """Each lane once a round, in turn. A probe between two runs serves both."""
    found: dict[str, list[Measured]] = {lane.name: [] for lane in lanes}
    before = settled(probe)
    for _ in range(rounds):
        for lane in lanes:
            run = lane.contender.run(lane.task)
            after = settled(probe)
            found[lane.name].append(Measured(lane.task, run, (before + after) / 2))
            before = after
    return found


def settled(probe: Callable[[], float]) -> float:
    time.sleep(SETTLE_SECONDS)
    bandwidth = probe()
    time.sleep(SETTLE_SECONDS)
    return bandwidth
