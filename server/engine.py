"""Engine: one step at a time, for every running sequence at once. Knows no HTTP, no threads, no devices and no KV cache.

The model is one function from a Step to logits. All methods are called from one thread; another may read `numbers`.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.step import Step
from server.guide import GuideFailed
from server.numbers import Numbers, Reading
from server.sampling import Logits, sample, score
from server.scheduler import Scheduler, Work
from server.sequence import Delta, Event, Failed, Finish, Scored, Sequence

Forward = Callable[[Step], Tensor]  # logits float32 [R, V]
log = logging.getLogger("server.engine")


class StepFailed(Exception):
    """The model raised in the middle of a step; `cause` says what."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"the model failed in this step ({type(cause).__name__})")
        self.cause = cause


class Meter(Protocol):
    """What a split model counts."""

    def read(self) -> Reading: ...


def nothing() -> None:
    """What most models need after a failure."""


class Engine:
    """`context`: tokens that fit a slot. `recover` is called after a failed step, and raises when there can be no other."""

    def __init__(
        self,
        forward: Forward,
        scheduler: Scheduler,
        context: int,
        *,
        clock: Callable[[], float] = time.perf_counter,
        meter: Meter | None = None,
        recover: Callable[[], None] = nothing,
    ) -> None:
        self._forward = forward
        self._scheduler = scheduler
        self._context = context
        self._clock = clock
        self._meter = meter
        self._recover = recover
        self._written = 0
        self._leaving: list[tuple[Sequence, Event]] = []  # until the numbers are right: whoever hears of an end may look at them
        self.numbers = Numbers(slots=scheduler.slots.count, kept_limit_bytes=scheduler.slots.kept.limit_bytes)

    @property
    def idle(self) -> bool:
        return self._scheduler.idle

    def submit(self, sequence: Sequence) -> None:
        assert 0 < len(sequence.prompt) + min(sequence.params.max_tokens, 1) <= self._context
        sequence.times.arrived = self._clock()
        self._scheduler.add(sequence)
        self._count()

    def cancel(self, sequence: Sequence) -> None:
        """Frees its slot now; nothing happens when it is finished already."""
        if sequence.finish is None:
            self._finish(sequence, "cancelled")
            self._leaving.append((sequence, Delta("", (), "cancelled")))
            self._count()

    def abandon(self, error: Exception) -> None:
        """Ends everything that runs or waits, with this error."""
        self._fail(self._scheduler.everyone(), error)
        self._count()

    def step(self) -> None:
        """Here a decode step happens: schedule, forward, sample, commit. A failure ends the sequences of this step only."""
        for sequence in self._scheduler.admit():
            self._guarded([sequence], partial(self._begin, sequence))
        works = self._scheduler.schedule()
        if works:
            self._guarded([work.sequence for work in works], partial(self._run, works))
        self._count()

    def _guarded(self, sequences: list[Sequence], action: Callable[[], None]) -> None:
        """Whatever goes wrong is the end of these sequences, of no others, and of the engine only when the device is lost."""
        try:
            action()
        except GuideFailed as error:
            self._fail(sequences, error)
        except Exception as error:
            log.exception("a step of %d sequences failed", len(sequences))
            self._fail(sequences, StepFailed(error))
            self._recover()

    def _begin(self, sequence: Sequence) -> None:
        """Its prompt is read from now on; or not at all, when an earlier choice has read the same one."""
        sequence.times.started = self._clock()
        self._scheduler.begin(sequence)
        self.numbers = replace(self.numbers, cached_tokens=self.numbers.cached_tokens + sequence.reused)
        if sequence.pending == 0:
            assert sequence.first_logits is not None
            self._continue(sequence, sequence.first_logits)

    def _run(self, works: list[Work]) -> None:
        """One step of the model, all prompt or all decode."""
        reads, began, before = works[0].sequence.reads_prompt, self._clock(), self._read()
        logits = self._forward(build_step(works))
        rows = split(works, logits.float().cpu().numpy())
        ran = self._clock()
        for work, own in zip(works, rows, strict=True):
            self._guarded([work.sequence], partial(self._commit, work, own))
        tokens, seconds = sum(work.count for work in works), self._clock() - began
        self._account(tokens, self._read() - before, reads=reads, model_seconds=ran - began, seconds=seconds)

    def _read(self) -> Reading:
        return Reading() if self._meter is None else self._meter.read()

    def _commit(self, work: Work, rows: Logits) -> None:
        """Takes the logits [r, V] of one sequence's work into the sequence."""
        sequence, completes = work.sequence, work.completes
        if sequence.scores_prompt:
            sequence.prompt_scores += score_prompt(sequence, work.count, rows)
        sequence.cached += work.count
        if completes:
            if not sequence.output:
                sequence.first_logits = rows[-1].copy()
            self._continue(sequence, rows[-1])

    def _continue(self, sequence: Sequence, logits: Logits) -> None:
        """One more token from the logits [V] after the last one; or the end, when none was asked for."""
        if sequence.params.max_tokens:
            return self._write(sequence, sample(logits, sequence), logits)
        sequence.times.first = sequence.times.last = self._clock()
        self._end(sequence, "length")

    def _write(self, sequence: Sequence, token: int, logits: Logits) -> None:
        """Appends one sampled token, and ends the sequence where it must end."""
        if sequence.params.logprobs is not None:
            sequence.scores.append(score(logits, token, sequence.params.logprobs))
        sequence.times.last = self._clock()
        sequence.times.first = sequence.times.first or sequence.times.last
        sequence.output.append(token)
        self._written += 1
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
            self._leaving.append((sequence, delta))

    def _end(self, sequence: Sequence, reason: Finish) -> None:
        sequence.stream.close()
        self._finish(sequence, reason)
        self._leaving.append((sequence, sequence.take()))

    def _finish(self, sequence: Sequence, reason: Finish) -> None:
        self._scheduler.remove(sequence)
        sequence.finish = reason
        finished = self.numbers.finished
        self.numbers = replace(self.numbers, finished={**finished, reason: finished.get(reason, 0) + 1})

    def _fail(self, sequences: list[Sequence], error: Exception) -> None:
        for sequence in sequences:
            if sequence.finish is None:
                self._scheduler.drop(sequence)
                sequence.finish = "cancelled"
                self.numbers = replace(self.numbers, failed=self.numbers.failed + 1)
                self._leaving.append((sequence, Failed(error)))

    def _account(self, tokens: int, sides: Reading, *, reads: bool, model_seconds: float, seconds: float) -> None:
        """A step of so many tokens is over; `sides`: what was counted in it."""
        now = self.numbers
        if reads:
            self._scheduler.pace.took(tokens, seconds)
            steps, total = now.prompt_steps + 1, now.prompt_seconds + seconds
            now = replace(now, prompt_tokens=now.prompt_tokens + tokens, prompt_steps=steps, prompt_seconds=total)
        else:
            now = replace(now, decode_steps=now.decode_steps + 1, decode_seconds=now.decode_seconds + seconds)
            waiting, gpu = now.decode_waiting_seconds + sides.waiting_seconds, now.decode_gpu_seconds + sides.gpu_seconds
            now = replace(now, decode_waiting_seconds=waiting, decode_gpu_seconds=gpu)
        now = replace(now, waiting_seconds=now.waiting_seconds + sides.waiting_seconds, gpu_seconds=now.gpu_seconds + sides.gpu_seconds)
        now = replace(now, fired_hot=now.fired_hot + sides.fired_hot, fired_cold=now.fired_cold + sides.fired_cold)
        self.numbers = replace(now, model_seconds=now.model_seconds + model_seconds)

    def _count(self) -> None:
        """The present state; then the events leave."""
        scheduler, kept = self._scheduler, self._scheduler.slots.kept
        now = replace(self.numbers, written_tokens=self._written, slots_busy=scheduler.running, waiting=scheduler.waiting)
        self.numbers = replace(now, kept_bytes=kept.nbytes, kept_texts=len(kept))
        leaving, self._leaving = self._leaving, []
        for sequence, event in leaving:
            sequence.emit(event)


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
    return work.count if work.sequence.scores_prompt else int(work.completes)


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
