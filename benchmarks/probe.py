"""What this machine's memory gives at this moment, by readers that have nothing to do with our kernels."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.arena import allocate

BUFFER_BYTES = 2**29  # far more than caches hold
PASSES = 5


@dataclass(frozen=True, slots=True)
class Probe:
    """A buffer in huge pages, as weights are, kept between probes so that a probe is nothing but reading."""

    buffer: Tensor

    @classmethod
    def build(cls, buffer_bytes: int = BUFFER_BYTES) -> "Probe":
        return cls(allocate(buffer_bytes).fill_(1))

    def bytes_per_second(self) -> float:
        """The faster of two readers (which one is it changes with the spell), each the median of PASSES, on torch's threads."""
        whole, fractions = self.buffer.view(torch.int64), self.buffer.view(torch.float32)
        return self.buffer.nbytes / min(median_seconds(whole.sum), median_seconds(fractions.sum))


def median_seconds(call: Callable[[], object]) -> float:
    """The first call wakes the threads."""
    call()
    seconds = []
    for _ in range(PASSES):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
