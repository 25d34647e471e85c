"""Sequence: one choice being written, and the only mutable thing in the server. Knows no model, no device and no HTTP.

A sequence waits (no slot), reads its prompt (`cached < len(prompt)`), writes (one token a step), and is finished.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from server.detokenize import TextStream
from server.guide import Guide

Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Params:
    """What a client may ask of one choice. `top_k` 0 is off; `logprobs` is how many alternatives to report, None for no report."""

    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
    score_prompt: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """A token, its log probability before any sampling rule, and the likeliest tokens at its place, best first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class TextToken:
    """A token of the output: its share of the text, where that begins, and its score when scores were asked for."""

    text: str
    offset: int
    scored: Scored | None


@dataclass(frozen=True, slots=True)
class Delta:
    """What became visible since the last event. `finish` is set in the last one."""

    text: str
    tokens: tuple[TextToken, ...]
    finish: Finish | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine could not go on with this sequence; always the last event."""

    error: Exception


Event = Delta | Failed


@dataclass(slots=True)
class Times:
    """Seconds on the engine's clock: when it came to the engine, when its prompt began to be read, its first token and its last."""

    arrived: float = 0.0
    started: float = 0.0
    first: float = 0.0
    last: float = 0.0


def nobody(event: Event) -> None:
    """Where events go before anyone listens."""


@dataclass(slots=True, eq=False)
class Sequence:
    """`cached` counts the tokens whose keys and values lie in the slot, `reused` those of the prompt that lay there already.

    `group` names the request, for taking turns. `twin` is an earlier choice of the same prompt in the same request: what was
    computed for its prompt is used again. `guide` narrows what may be written next; without one every token may.
    """

    prompt: tuple[int, ...]
    params: Params
    stream: TextStream
    draw: np.random.Generator
    group: str = ""
    guide: Guide | None = None
    emit: Callable[[Event], None] = nobody
    slot: int | None = None
    begun: bool = False  # its slot holds what can be used again, and nothing of an older text
    cached: int = 0
    reused: int = 0
    twin: "Sequence | None" = None
    first_logits: NDArray[np.float32] | None = None  # [V], after the prompt
    stepped: int = 0  # the scheduler's step that gave it its last token
    output: list[int] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)
    prompt_scores: list[Scored | None] = field(default_factory=lambda: [None])
    finish: Finish | None = None
    times: Times = field(default_factory=Times)

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.output)

    @property
    def pending(self) -> int:
        """Tokens that are known and not yet in the cache."""
        return self.length - self.cached

    @property
    def scores_prompt(self) -> bool:
        """Whether the logits of its prompt's tokens are still wanted."""
        return self.params.score_prompt and len(self.prompt_scores) < len(self.prompt)

    def inherit(self) -> None:
        """Takes what the twin's prompt has given, when that was read to its end."""
        if self.twin is not None and self.twin.first_logits is not None:
            self.prompt_scores, self.first_logits = self.twin.prompt_scores, self.twin.first_logits

    @property
    def reads_prompt(self) -> bool:
        return self.cached < len(self.prompt)

    def tokens(self, count: int) -> list[int]:
        """The next `count` tokens to go through the model."""
        if self.reads_prompt:
            return list(self.prompt[self.cached : self.cached + count])
        begin = self.cached - len(self.prompt)
        return self.output[begin : begin + count]

    def take(self) -> Delta:
        """What may leave now and has not left yet."""
        text, first, last = self.stream.take()
        spans = [(number, self.stream.start(number), self.stream.ends[number]) for number in range(first, last)]
        tokens = tuple(TextToken(self.stream.text[a:b], a, self.scores[i] if self.scores else None) for i, a, b in spans)
        return Delta(text, tokens, self.finish)


def generator(seed: int | None, index: int) -> np.random.Generator:
    """The dice of choice `index` of a prompt: with a seed, the same ones whatever else the server does."""
    return np.random.default_rng(None if seed is None else [seed % 2**64, index])
