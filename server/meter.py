"""SplitMeter: what the engine can be told of a model that is split between two sides: who waited, who worked, who served what fired."""

from dataclasses import dataclass

from torch import Tensor

from gpu_ops.clock import GpuClock
from models.step import Step
from server.engine import Forward
from server.watching import WatchingFfn


@dataclass(frozen=True, slots=True)
class SplitMeter:
    clock: GpuClock
    ffn: WatchingFfn

    @property
    def waiting_seconds(self) -> float:
        return self.clock.waiting_seconds

    @property
    def gpu_seconds(self) -> float:
        return self.clock.working_seconds

    @property
    def fired_hot(self) -> int:
        return self.ffn.fired_hot

    @property
    def fired_cold(self) -> int:
        return self.ffn.fired_cold


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
