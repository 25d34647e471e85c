"""Bench: tokens per second of prompts and of decoding at several lengths, for every format and split that is asked for.

Prompts are random tokens, new ones every time, so that nothing is found in the cache. The first round is not counted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

from models.errors import BadValue
from models.units import format_rate
from server.config import Config
from server.engine import Engine
from server.load import Ready
from server.offline import build, finish, loaded, named
from server.sequence import Params
from server.table import table

HEAD = ("model", "format", "neurons", "test", "tokens/s", "±", "expected")


@dataclass(frozen=True, slots=True)
class Plan:
    """Lengths in tokens. Decoding writes `written` tokens after a text of each of `depths`."""

    prompts: tuple[int, ...]
    depths: tuple[int, ...]
    written: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens per second, one a round."""

    test: str
    rounds: tuple[float, ...]
    expected: float | None = None

    @property
    def spread(self) -> float:
        return stdev(self.rounds) if len(self.rounds) > 1 else 0.0


def bench(configs: Sequence[Config], plan: Plan) -> Iterator[str]:
    """The table's lines, when all is measured."""
    rows = []
    for config in configs:
        with loaded(config) as ready:
            check(plan, ready.plan.question.context)
            rows += [cells(ready, rate) for rate in rates(ready, plan)]
    yield from table(HEAD, rows)


def check(plan: Plan, context: int) -> None:
    longest = max([*plan.prompts, *(depth + plan.written for depth in plan.depths)])
    if longest >= context:
        raise BadValue("--prompt or --depth", longest, f"tokens do not fit the context of {context}; see --context")


def rates(ready: Ready, plan: Plan) -> Iterator[Rate]:
    prompts = Prompts(ready.manifest.spec.vocab)
    for length in plan.prompts:
        yield Rate(f"prompt {length}", tuple(prompt_rate(ready.engine, prompts.next(length)) for _ in range(plan.rounds + 1))[1:])
    for depth in plan.depths:
        found = tuple(decode_rate(ready.engine, prompts.next(depth), plan.written) for _ in range(plan.rounds + 1))[1:]
        yield Rate(f"decode {plan.written} after {depth}", found, ready.plan.expected.tokens_per_second)


class Prompts:
    """Random tokens, never the same twice."""

    def __init__(self, vocab: int) -> None:
        self._dice, self._vocab = np.random.default_rng(0), vocab

    def next(self, length: int) -> list[int]:
        return [int(token) for token in self._dice.integers(0, self._vocab, length)]


def prompt_rate(engine: Engine, prompt: list[int]) -> float:
    """From the beginning of the prompt to the first token."""
    sequence = build(prompt, Params(max_tokens=1, temperature=0))
    finish(engine, [sequence])
    return len(prompt) / (sequence.times.first - sequence.times.started)


def decode_rate(engine: Engine, prompt: list[int], written: int) -> float:
    """From the first token to the last one; nothing ends the text early."""
    sequence = build(prompt, Params(max_tokens=written + 1, temperature=0))
    finish(engine, [sequence])
    return written / (sequence.times.last - sequence.times.first)


def cells(ready: Ready, rate: Rate) -> tuple[str, ...]:
    expected = "" if rate.expected is None else format_rate(rate.expected)
    return (ready.manifest.name, *named(ready), rate.test, format_rate(mean(rate.rounds)), format_rate(rate.spread), expected)
