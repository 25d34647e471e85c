"""Engine: one step at a time, for every running sequence at once. Knows no HTTP, no threads, no devices and no KV cache.

The model is one function from a Step to logits. All methods are called from one thread.
"""

import logging
import time
from collections.abc import Callable
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from models.step import Step
from server.guide import GuideFailed
from server.sampling import Logits, sample, score
from server.scheduler import Scheduler, Work
from server.sequence import Delta, Failed, Finish, Scored, Sequence

Forward = Callable[[Step], Tensor]  # logits float32 [R, V]
log = logging.getLogger("server.engine")


class StepFailed(Exception):
    """The model raised in the middle of a step; `cause` says what."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"the model failed in this step ({type(cause).__name__})")
        self.cause = cause


class Engine:
    """`context`: tokens that fit a slot. `eos`: token ids that end a text, unless its params keep them out of `stop_ids`."""

    def __init__(self, forward: Forward, scheduler: Scheduler, context: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._forward = forward
        self._scheduler = scheduler
        self._context = context
        self._clock = clock

    @property
    def idle(self) -> bool:
        return self._scheduler.idle

    def submit(self, sequence: Sequence) -> None:
        assert 0 < len(sequence.prompt) + min(sequence.params.max_tokens, 1) <= self._context
        self._scheduler.add(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Frees its slot now; nothing happens when it is finished already."""
        if sequence.finish is None:
            self._finish(sequence, "cancelled")
            sequence.emit(Delta("", (), "cancelled"))

    def step(self) -> None:
        """Here a decode step happens: schedule, forward, sample, commit. A failure ends the sequences of this step only."""
        for sequence in self._scheduler.admit():
            sequence.times.started = self._clock()
        works = self._scheduler.schedule()
        try:
            logits = self._forward(build_step(works))
            rows = split(works, logits.float().cpu().numpy())
            for work, own in zip(works, rows, strict=True):
                self._try_commit(work, own)
        except Exception as error:
            log.exception("a step of %d sequences failed", len(works))
            self._fail(works, error)

    def _try_commit(self, work: Work, rows: Logits) -> None:
        """A grammar that cannot go on ends its own sequence only."""
        try:
            self._commit(work, rows)
        except GuideFailed as error:
            self._finish(work.sequence, "cancelled")
            work.sequence.emit(Failed(error))

    def _commit(self, work: Work, rows: Logits) -> None:
        """Takes the logits [r, V] of one sequence's work into the sequence."""
        sequence, completes = work.sequence, work.completes
        if sequence.reads_prompt and sequence.params.score_prompt:
            sequence.prompt_scores += score_prompt(sequence, work.count, rows)
        token = sample(rows[-1], sequence) if completes and sequence.params.max_tokens else None
        sequence.cached += work.count
        if token is not None:
            self._write(sequence, token, rows[-1])
        elif completes:
            sequence.times.first = sequence.times.last = self._clock()
            self._end(sequence, "length")

    def _write(self, sequence: Sequence, token: int, logits: Logits) -> None:
        """Appends one sampled token, and ends the sequence where it must end."""
        if sequence.params.logprobs is not None:
            sequence.scores.append(score(logits, token, sequence.params.logprobs))
        sequence.times.last = self._clock()
        sequence.times.first = sequence.times.first or sequence.times.last
        sequence.output.append(token)
        if token in sequence.params.stop_ids:
            sequence.stream.push_silent()
        else:
            sequence.stream.push(token)
        done = sequence.guide is not None and sequence.guide.push(token)
        reason = "stop" if done else why_finished(sequence, self._context)
        if reason is not None:
            return self._end(sequence, reason)
        delta = sequence.take()
        if delta.text or delta.tokens:
            sequence.emit(delta)

    def _end(self, sequence: Sequence, reason: Finish) -> None:
        sequence.stream.close()
        self._finish(sequence, reason)
        sequence.emit(sequence.take())

    def _finish(self, sequence: Sequence, reason: Finish) -> None:
        self._scheduler.remove(sequence)
        sequence.finish = reason

    def _fail(self, works: list[Work], error: Exception) -> None:
        for sequence in (work.sequence for work in works if work.sequence.finish is None):
            self._finish(sequence, "cancelled")
            sequence.emit(Failed(StepFailed(error)))


def build_step(works: list[Work]) -> Step:
    """The tokens of all works, adjacent per slot, and the rows whose logits count."""
    tokens = [token for work in works for token in work.sequence.tokens(work.count)]
    positions = [work.sequence.cached + i for work in works for i in range(work.count)]
    slots = [work.sequence.slot for work in works for _ in range(work.count)]
    ends = accumulate(work.count for work in works)
    wanted = [end - back for work, end in zip(works, ends, strict=True) for back in range(rows_wanted(work), 0, -1)]
    return Step(*(torch.from_numpy(np.array(column, dtype=np.int64)) for column in (tokens, positions, slots, wanted)))


def rows_wanted(work: Work) -> int:
    """How many of a work's last rows need logits: all to score a prompt, one to sample, else none."""
    scores = work.sequence.reads_prompt and work.sequence.params.score_prompt
    return work.count if scores else int(work.completes)


def split(works: list[Work], logits: Logits) -> list[Logits]:
    """logits [R, V] -> each work's own rows."""
    return np.split(logits, list(accumulate(rows_wanted(work) for work in works))[:-1])


def score_prompt(sequence: Sequence, count: int, rows: Logits) -> list[Scored]:
    """The row of a prompt token scores the token after it; the last token's row scores nothing that is known."""
    following = sequence.prompt[sequence.cached + 1 : sequence.cached + 1 + count]
    return [score(row, token, sequence.params.logprobs or 0) for row, token in zip(rows, following, strict=False)]


def why_finished(sequence: Sequence, context: int) -> Finish | None:
    if sequence.output[-1] in sequence.params.stop_ids or sequence.stream.stopped:
        return "stop"
    return "length" if len(sequence.output) >= sequence.params.max_tokens or sequence.length >= context else None
