"""What every answer holds, whatever its shape: usage, timings, which choices are shown. Sends nothing itself."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from server.api.asked import Asked
from server.sequence import Delta
from server.service import Service
from server.timings import Timings, timings

Json = dict[str, Any]
LEAST_LOGPROB = -9999.0  # stands for minus infinity, which JSON cannot say


class Shape(Protocol):
    """How choices look in one of the two APIs."""

    @property
    def request(self) -> "Request": ...

    def chunks(self, number: int, delta: Delta, *, first: bool) -> list[Json]:
        """The streamed choices that a delta makes, each to be an event of its own."""

    def whole(self, number: int, deltas: list[Delta], index: int) -> Json:
        """A finished choice."""

    def frame(self, choices: list[Json], created: int, *, streamed: bool) -> Json:
        """The object around choices."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request that runs, and the service that runs it."""

    asked: Asked
    service: Service

    def best(self) -> list[tuple[int, int]]:
        """(index of the choice, number of its sequence): for each prompt the `n` of highest mean log probability."""
        shown, tries = self.asked.body.choices, self.asked.body.tries
        numbers = range(len(self.asked.sequences))
        groups = [numbers[start : start + tries] for start in range(0, len(numbers), tries)]
        kept = [number for group in groups for number in (group if shown == tries else sorted(group, key=self._rank)[:shown])]
        return list(enumerate(kept))

    def _rank(self, number: int) -> float:
        scores = self.asked.sequences[number].scores
        return -sum(one.logprob for one in scores) / len(scores) if scores else math.inf

    def usage(self) -> Json:
        """Prompts count once each, however many choices they have; every token written counts, shown or not."""
        prompt_tokens = sum(len(prompt.ids) for prompt in self.asked.prompts)
        completion_tokens = sum(len(sequence.output) for sequence in self.asked.sequences)
        total = {"completion_tokens": completion_tokens, "total_tokens": prompt_tokens + completion_tokens}
        return {"prompt_tokens": prompt_tokens} | total | {"prompt_tokens_details": {"cached_tokens": self._cached_tokens()}}

    def _cached_tokens(self) -> int:
        """Of each prompt, the tokens that were not read because they had been before."""
        return sum(sequence.reused for sequence in self.asked.sequences[:: self.asked.body.tries])

    def timings(self) -> Timings:
        return timings(self.asked.sequences, self.service.expected_per_second)

    def frame(self, kind: str, choices: list[Json], created: int) -> Json:
        return {"id": self.asked.id, "object": kind, "created": created, "model": self.service.model, "choices": choices}


def joined(deltas: Iterable[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
