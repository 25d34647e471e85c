"""SplitMeter: what the engine can be told of a model that is split between two sides: who waited, who worked, who served what fired."""

from dataclasses import dataclass

from torch import Tensor

from gpu_ops.clock import GpuClock
from models.step import Step
from server.engine import Forward
from server.numbers import Reading
from server.watching import WatchingFfn


@dataclass(frozen=True, slots=True)
class SplitMeter:
    clock: GpuClock
    ffn: WatchingFfn

    def read(self) -> Reading:
        return Reading(self.clock.waiting_seconds, self.clock.working_seconds, self.ffn.fired_hot, self.ffn.fired_cold)


@dataclass(frozen=True, slots=True)
class Clocked:
    """A Forward whose logits are in host memory when it returns, so that the wait for them is counted."""

    forward: Forward
    clock: GpuClock

    def __call__(self, step: Step) -> Tensor:
        self.clock.begin()
        logits = self.forward(step)
        self.clock.mark()
        with self.clock.waiting():
            arrived = logits.float().cpu()
        self.clock.settle()
        return arrived
