"""Measured: what a running model does and holds, in the same terms as its plan. Knows no HTTP and no metrics format."""

from dataclasses import dataclass

from server.held import Held, MemoryNow
from server.numbers import Numbers
from server.service import Service


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

    def per_step(self, seconds: float) -> float | None:
        return ratio(seconds, self.numbers.prompt_steps + self.numbers.decode_steps)


def ratio(above: float, below: float) -> float | None:
    return above / below if below > 0 else None
