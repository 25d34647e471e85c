"""Scheduler: who gets a slot, and whose tokens go into the next step. Knows no model, no text and no clock.

A step is all prompt or all decode, and the two alternate while both have work. So a long prompt delays the others by one bounded
chunk, and a decoding token is computed by the decode kernels whatever its neighbours do (its bits do not depend on them).
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

from server.sequence import Sequence

SCORED_ROWS = 128  # rows of logits [vocabulary] that one step may ask for when a prompt is scored: 128 · 128k · 4 B = 67 MB


@dataclass(frozen=True, slots=True)
class Work:
    """The next `count` tokens of one sequence."""

    sequence: Sequence
    count: int

    @property
    def completes(self) -> bool:
        """True when a new token can be sampled after this work."""
        return self.count == self.sequence.pending


class Scheduler:
    """`slots` sequences run at once; one step reads at most `chunk` tokens of prompts. Requests take turns for free slots."""

    def __init__(self, slots: int, chunk: int) -> None:
        assert 0 < slots <= chunk, "every running prompt must advance in a prompt step"
        self._chunk = chunk
        self._free = list(range(slots))
        self._waiting: OrderedDict[str, deque[Sequence]] = OrderedDict()
        self._running: list[Sequence] = []
        self._prompt_was_last = False

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    def add(self, sequence: Sequence) -> None:
        self._waiting.setdefault(sequence.group, deque()).append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is; its slot is free at once."""
        if sequence.slot is not None:
            self._running.remove(sequence)
            self._free.append(sequence.slot)
            sequence.slot = None
            return
        queue = self._waiting[sequence.group]
        queue.remove(sequence)
        if not queue:
            del self._waiting[sequence.group]

    def admit(self) -> list[Sequence]:
        """Gives the free slots away, one sequence per request and turn; the sequences that got one."""
        admitted = []
        while self._free and self._waiting:
            group, queue = self._waiting.popitem(last=False)
            sequence = queue.popleft()
            sequence.slot = self._free.pop(0)
            self._running.append(sequence)
            admitted.append(sequence)
            if queue:
                self._waiting[group] = queue
        return admitted

    def schedule(self) -> list[Work]:
        """The work of the next step; empty when nothing runs."""
        prompts = [sequence for sequence in self._running if sequence.reads_prompt]
        writers = [sequence for sequence in self._running if not sequence.reads_prompt]
        self._prompt_was_last = bool(prompts) and not (writers and self._prompt_was_last)
        return share(prompts, self._chunk) if self._prompt_was_last else [Work(sequence, 1) for sequence in writers]


def share(prompts: list[Sequence], budget: int) -> list[Work]:
    """Splits `budget` tokens evenly; what a short prompt leaves goes to the longer ones. Order of arrival is kept."""
    counts: dict[int, int] = {}
    for done, sequence in enumerate(sorted(prompts, key=wanted_tokens)):
        count = min(wanted_tokens(sequence), budget // (len(prompts) - done))
        counts[id(sequence)] = count
        budget -= count
    return [Work(sequence, counts[id(sequence)]) for sequence in prompts]


def wanted_tokens(sequence: Sequence) -> int:
    """How many prompt tokens a sequence could use in one step."""
    return min(sequence.pending, SCORED_ROWS) if sequence.params.score_prompt else sequence.pending
