"""A decode step, recorded once for each number of tokens and played back: one call from Python for all of it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from torch import Tensor

from cpu_ops.attend import PIECE, goes_through_torch, move_waves
from cpu_ops.describe import Block
from cpu_ops.kernels.replay import function_of, replay
from cpu_ops.tape import Reel, Tape, recording
from models.kv_cache import KvCache
from models.layers import Segments
from models.step import Step

LOG = logging.getLogger(__name__)
Compute = Callable[[Step, Segments, KvCache], Tensor]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A tape, the memory its input is put into and its output comes from, and its calls as `replay` takes them."""

    tape: Tape
    step: Step
    segments: Segments
    logits: Tensor
    calls: Block
    address: int

    def play(self, step: Step, segments: Segments, cache: KvCache) -> Tensor:
        self.take(step, segments, cache)
        replay(self.address, len(self.calls))
        return self.logits.clone()

    def take(self, step: Step, segments: Segments, cache: KvCache) -> None:
        """Puts the step where the kernels look for it."""
        for given, place in ((step.tokens, self.step.tokens), (step.positions, self.step.positions), (step.wanted, self.step.wanted)):
            place.copy_(given)
        move_waves(self.segments, segments, cache)


class Tapes(dict[int, Recorded | None]):
    """Of a cache, by the number of tokens; and the memory that they share."""

    def __init__(self) -> None:
        super().__init__()
        self.reel = Reel()


_RECORDED: WeakKeyDictionary[KvCache, Tapes] = WeakKeyDictionary()


def replayed(step: Step, segments: Segments, cache: KvCache, compute: Compute) -> Tensor:
    """compute(step, …), for a model whose every step of T tokens calls the same kernels, and which has the cache for itself.

    Played back is what happens again and again: steps that want the logits of all their tokens, which are no more than the cache has
    slots. So there are few tapes. Where a step turns out to do more than call kernels it is computed.
    """
    tokens = len(step)
    if not tokens == len(step.wanted) <= min(PIECE, cache.slots) or goes_through_torch(cache.spec):
        return compute(step, segments, cache)
    tapes = _RECORDED.setdefault(cache, Tapes())
    if tokens not in tapes:
        tapes[tokens], logits = record(step, segments, cache, compute, tapes.reel)
        return logits
    recorded = tapes[tokens]
    return compute(step, segments, cache) if recorded is None else recorded.play(step, segments, cache)


def recorded_for(step: Step, cache: KvCache) -> Recorded | None:
    """What steps of this size are played back from, if they are."""
    return _RECORDED[cache].get(len(step)) if cache in _RECORDED else None


def record(step: Step, segments: Segments, cache: KvCache, compute: Compute, reel: Reel) -> tuple[Recorded | None, Tensor]:
    """The recorded step, None when playing it back would leave something out; and its logits."""
    own = Step(*(part.clone() for part in (step.tokens, step.positions, step.slots, step.wanted)))
    places = Segments(segments.each)
    with recording(reel) as tape:
        logits = compute(own, places, cache)
    if tape.stranger is not None:
        LOG.info("steps of %d tokens are computed, not played back: besides kernels they need torch's %r", len(step), tape.stranger)
        return None, logits.clone()
    calls = calls_of(tape)
    return Recorded(tape, own, places, logits, calls, calls.ctypes.data), logits.clone()


def compile_kernel() -> None:
    """A call with nothing to do."""
    replay(0, 0)


def calls_of(tape: Tape) -> Block:
    """int64 [calls, 2]: the calls of a tape as `replay` takes them."""
    functions = {kernel: function_of(kernel) for kernel, _ in tape.calls}
    return np.array([(functions[kernel], block.buffer_info()[0]) for kernel, block in tape.calls], np.int64)
