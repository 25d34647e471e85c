"""Scheduler: who gets a slot, and whose tokens go into the next step. Knows no model, no text and no clock.

A step is all prompt or all decode: a decoding token is computed by the decode kernels whatever its neighbours do (its bits do not
depend on them). After a chunk of prompts everyone who writes gets a token before the next chunk, so a long prompt delays the others
by one chunk at a time, and `Pace` bounds how long that takes.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from server.kept import NOTHING, Ids, common
from server.pace import LONGEST_SECONDS, Pace
from server.sequence import Sequence
from server.slots import Slots

SCORED_ROWS = 128  # rows of logits [vocabulary] that one step may ask for when a prompt is scored: 128 · 128k · 4 B = 67 MB
MOST_WRITERS = 16  # in one step: above, other kernels compute them, whose bits depend on how many there are
WORTH_WAITING = 16  # tokens that another prompt, read now, will have in common with one that has not begun


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
    """Every slot runs one sequence; one step reads at most `pace.most` tokens of prompts. Requests take turns for free slots."""

    def __init__(self, slots: Slots, pace: Pace) -> None:
        assert 0 < slots.count <= pace.most, "every running prompt must advance in a prompt step"
        self.slots, self.pace = slots, pace
        self._waiting: OrderedDict[str, deque[Sequence]] = OrderedDict()
        self._running: list[Sequence] = []  # in the order in which they got their slots
        self._leaders: dict[Sequence, tuple[Sequence, int]] = {}  # whom one that has not begun waits for, to have read how much
        self._steps, self._last_chunk = 0, -1

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def everyone(self) -> list[Sequence]:
        """All that run or wait."""
        return [*self._running, *(sequence for queue in self._waiting.values() for sequence in queue)]

    def add(self, sequence: Sequence) -> None:
        self._waiting.setdefault(sequence.group, deque()).append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is; its slot is free at once, and what lies in it can be used again."""
        self._take_out(sequence, known_tokens(sequence))

    def drop(self, sequence: Sequence) -> None:
        """The same, when what lies in its slot is not to be trusted."""
        self._take_out(sequence, NOTHING)

    def _take_out(self, sequence: Sequence, tokens: Ids) -> None:
        if sequence.slot is not None:
            self._running.remove(sequence)
            self._leaders.pop(sequence, None)
            self.slots.give_back(sequence.slot, tokens)
            sequence.slot = None
            return
        queue = self._waiting[sequence.group]
        queue.remove(sequence)
        if not queue:
            del self._waiting[sequence.group]

    def admit(self) -> list[Sequence]:
        """Gives the free slots away, one sequence per request and turn; who may begin now: read, or write with what it has."""
        while self.slots.free and self._waiting:
            group, queue = self._waiting.popitem(last=False)
            self._seat(queue.popleft())
            if queue:
                self._waiting[group] = queue
        return [sequence for sequence in self._running if not sequence.begun and not self._must_wait(sequence)]

    def _seat(self, sequence: Sequence) -> None:
        sequence.inherit()
        prompt = usable(sequence)
        sequence.slot = self.slots.take(prompt)
        shared, leader = self._leader_of(sequence, prompt)
        if leader is not None:
            self._leaders[sequence] = leader, shared
        self._running.append(sequence)

    def _leader_of(self, sequence: Sequence, prompt: Ids) -> tuple[int, Sequence | None]:
        """The one whose reading now will be worth most to `sequence`. Always an earlier one, so they never wait in a circle."""
        if sequence.twin in self._running:
            return len(sequence.prompt), sequence.twin
        readers = [(common(ids_of(one.prompt), prompt), one) for one in self._running if one.reads_prompt]
        shared, leader = max(readers, key=lambda pair: pair[0], default=(0, None))
        return shared, leader if shared >= WORTH_WAITING else None

    def _must_wait(self, sequence: Sequence) -> bool:
        """Whether its leader still reads what they have in common."""
        leader, shared = self._leaders.get(sequence, (None, 0))
        return leader is not None and leader.slot is not None and leader.cached < shared

    def begin(self, sequence: Sequence) -> None:
        """Its slot gets what can be used again of its prompt; `cached` and `reused` say how much."""
        assert sequence.slot is not None
        self._leaders.pop(sequence, None)
        sequence.inherit()
        others = ((one.slot, known_tokens(one)) for one in self._running if one.begun and one.slot is not None)
        sequence.begun = True
        sequence.cached = sequence.reused = self.slots.begin(sequence.slot, usable(sequence), others)

    def schedule(self) -> list[Work]:
        """The work of the next step; empty when nothing can be done."""
        begun = [sequence for sequence in self._running if sequence.begun]
        prompts = [sequence for sequence in begun if sequence.reads_prompt]
        writers = [sequence for sequence in begun if not sequence.reads_prompt]
        self._steps += 1
        if prompts and all(sequence.stepped > self._last_chunk for sequence in writers):
            self._last_chunk = self._steps
            bound = self.pace.stall_seconds if writers else LONGEST_SECONDS
            return share(prompts, max(self.pace.tokens(bound), len(prompts)))
        return [Work(sequence, 1) for sequence in self._next(writers)]

    def _next(self, writers: list[Sequence]) -> Iterator[Sequence]:
        """The MOST_WRITERS who have waited longest."""
        for sequence in sorted(writers, key=lambda one: one.stepped)[:MOST_WRITERS]:
            sequence.stepped = self._steps
            yield sequence


def ids_of(tokens: tuple[int, ...]) -> Ids:
    return np.array(tokens, dtype=np.int64)


def usable(sequence: Sequence) -> Ids:
    """What keys and values from elsewhere may stand for: nothing of a prompt that must be scored, all of one whose last logits are known.

    Else the last token is left, since its logits are wanted.
    """
    if sequence.scores_prompt:
        return NOTHING
    return ids_of(sequence.prompt if sequence.first_logits is not None else sequence.prompt[:-1])


def known_tokens(sequence: Sequence) -> Ids:
    """The tokens whose keys and values lie in its slot."""
    return ids_of((*sequence.prompt, *sequence.output)[: sequence.cached])


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
    return min(sequence.pending, SCORED_ROWS) if sequence.scores_prompt else sequence.pending
