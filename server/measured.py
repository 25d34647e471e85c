"""Measured: what a running model does and holds, in the same terms as its plan. Knows no HTTP and no metrics format."""

from collections.abc import Mapping
from dataclasses import dataclass

from placement.artefact import Placement
from placement.budget import Budget
from server.held import Held, MemoryNow
from server.numbers import Numbers
from server.service import Service

Bytes = Mapping[str, int]  # by what they are for, in the plan's words
Seconds = Mapping[str, float | None]  # of a decode step: the "cpu" computes, or is "waiting" for the other side; the "gpu" works meanwhile


@dataclass(frozen=True, slots=True)
class Measured:
    """`sequence_tokens_per_second` is what one text sees, as the plan says it; `tokens_per_second` of all together; None before any."""

    numbers: Numbers
    held: Held | None
    memory: MemoryNow
    unfinished: int

    @classmethod
    def look(cls, service: Service) -> "Measured":
        return cls(service.bridge.numbers, service.held, MemoryNow.look(), service.bridge.unfinished)

    @property
    def sequence_tokens_per_second(self) -> float | None:
        return ratio(self.numbers.decode_steps, self.numbers.decode_seconds)

    @property
    def tokens_per_second(self) -> float | None:
        return ratio(self.numbers.written_tokens, self.numbers.prompt_seconds + self.numbers.decode_seconds)

    @property
    def prompt_tokens_per_second(self) -> float | None:
        return ratio(self.numbers.prompt_tokens, self.numbers.prompt_seconds)

    @property
    def cache_share(self) -> float | None:
        """Of all tokens of prompts, those that were not read again."""
        return ratio(self.numbers.cached_tokens, self.numbers.cached_tokens + self.numbers.prompt_tokens)

    @property
    def hot_neurons(self) -> int | None:
        return None if self.held is None else sum(self.held.hot)

    @property
    def hot_share(self) -> float | None:
        """Of the firings that were counted, those that the GPU served; nothing need be counted to know that it serves none."""
        return 0.0 if self.hot_neurons == 0 else self.numbers.hot_share

    @property
    def step_seconds(self) -> Seconds:
        """Means over decode steps: the plan is one of those."""
        numbers = self.numbers
        sides = {"gpu": numbers.decode_gpu_seconds, "cpu": numbers.decode_cpu_seconds, "waiting": numbers.decode_waiting_seconds}
        return {side: ratio(seconds, numbers.decode_steps) for side, seconds in sides.items()}

    @property
    def vram_bytes(self) -> Bytes | None:
        """None without a GPU. What is one number in the plan and nobody's tensor (workspace, margin) is in the sum only."""
        if self.memory.vram is None or self.held is None:
            return None
        return {**spine_bytes(self.held), **hot_bytes(self.held), "in all": self.memory.vram}

    @property
    def ram_bytes(self) -> Bytes:
        if self.held is None:
            return {"in all": self.memory.resident}
        spine = spine_bytes(self.held) if self.vram_bytes is None else {}
        return {**spine, **cold_bytes(self.held), "in all": self.memory.resident}


def spine_bytes(held: Held) -> Bytes:
    return {"spine": held.spine_bytes, "KV cache": held.kv_bytes}


def hot_bytes(held: Held) -> Bytes:
    return {"hot neurons": held.hot_bytes} | ({"predictors": held.mask_bytes} if held.mask_bytes else {})


def cold_bytes(held: Held) -> Bytes:
    return {"cold neurons": held.cold_bytes} | ({"predictors": held.predictor_bytes} if held.predictor_bytes else {})


def planned_bytes(budget: Budget) -> Bytes:
    return {line.name: line.bytes for line in budget.lines} | {"in all": budget.used_bytes, "limit": budget.limit_bytes}


def planned_seconds(plan: Placement) -> Seconds:
    """The plan counts each layer where it waits: what is not the CPU's is waiting for the GPU, or for what goes to and fro."""
    expected = plan.expected
    return {"gpu": expected.gpu_seconds, "cpu": expected.cpu_seconds, "waiting": expected.gpu_seconds + expected.transfer_seconds}


def ratio(above: float, below: float) -> float | None:
    return above / below if below > 0 else None
