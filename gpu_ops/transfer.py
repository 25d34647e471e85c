"""The way between the sides: an input goes down to the host, a partial sum comes back. Knows no layers and no neurons.

Buffers are pinned and used again for every layer. That is safe because the stream keeps its order: once an input has arrived,
every copy queued before it, the previous partial sum's too, is done.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_ops.clock import GpuClock, timed_event
from models.errors import BadValue
from models.formats import Input


@dataclass(frozen=True, slots=True)
class Arriving:
    """An input on its way to the host."""

    input: Input
    arrived: torch.cuda.Event | None
    clock: GpuClock

    def wait(self) -> Input:
        """The input in host memory, complete; valid until the next one is sent down."""
        if self.arrived is not None:
            self.clock.mark()  # all that can be queued is
            with self.clock.waiting():
                self.arrived.synchronize()
        return self.input


class Staging:
    """Room for [tokens, hidden] in both directions. On the CPU device nothing is copied. What was sent down is waited for and sent up."""

    def __init__(self, device: torch.device, *, tokens: int, hidden: int) -> None:
        self.device, self.tokens, self.hidden = device, tokens, hidden
        pinned = device.type == "cuda"
        self.clock = GpuClock(timed_event if pinned else None)
        room = tokens if pinned else 0
        self._values = torch.empty(room * hidden * 4, dtype=torch.uint8, pin_memory=pinned)
        self._scales = torch.empty(room * hidden, dtype=torch.float32, pin_memory=pinned)
        self._partial = torch.empty(room, hidden, dtype=torch.float32, pin_memory=pinned)

    def send_down(self, x: Input) -> Arriving:
        """Queues the copy of `x` [T, H] to the host and returns at once."""
        if self.device.type != "cuda":
            return Arriving(x, None, self.clock)
        self._check_room(len(x))
        values = _into(self._values.view(x.values.dtype), x.values)
        scales = None if x.scales is None else _into(self._scales, x.scales)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(self.device))
        return Arriving(Input(values, scales), arrived, self.clock)

    def send_up(self, partial: Tensor) -> Tensor:
        """Queues the copy of `partial` float32 [T, H] to the device; what follows on its stream sees it."""
        if self.device.type != "cuda":
            return partial
        self._check_room(len(partial))
        room = self._partial[: len(partial)]
        room.copy_(partial)
        self.clock.mark()  # here is more
        return room.to(self.device, non_blocking=True)

    def _check_room(self, tokens: int) -> None:
        if tokens > self.tokens:
            raise BadValue("tokens", tokens, f"is more than the {self.tokens} this staging was made for")


def _into(room: Tensor, source: Tensor) -> Tensor:
    """Copies `source` to the start of a flat buffer; a view of its shape there."""
    there = room[: source.numel()].view(source.shape)
    there.copy_(source, non_blocking=True)
    return there
