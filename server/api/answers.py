"""What leaves /v1/completions: choices in the legacy shape, their log probabilities, usage and timings. Sends nothing itself."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from models.tokenizer import IncrementalDecoder, Tokenizer
from server.api.asked import Asked, Prompt
from server.detokenize import TextStream
from server.sequence import Delta, Scored, TextToken
from server.service import Service
from server.timings import Timings, timings

LEAST_LOGPROB = -9999.0  # stands for minus infinity, which JSON cannot say


@dataclass(frozen=True, slots=True)
class Answers:
    """Turns what the engine tells about one request into JSON."""

    asked: Asked
    service: Service

    def chunk(self, number: int, delta: Delta, *, first: bool) -> dict[str, Any]:
        """A streamed choice; the first one of each sequence begins with the echo."""
        text, tokens, base = delta.text, delta.tokens, self.echo_length(number)
        found = [shifted(token, base) for token in tokens]
        if first:
            text, found = self.echo(number) + text, self.echoed(number) + found
        return self.choice(number, text, found, delta.finish)

    def whole(self, number: int, deltas: Iterable[Delta], index: int) -> dict[str, Any]:
        """A finished choice."""
        base, parts = self.echo_length(number), list(deltas)
        text = self.echo(number) + "".join(part.text for part in parts)
        tokens = [shifted(token, base) for part in parts for token in part.tokens]
        return self.choice(index, text, self.echoed(number) + tokens, parts[-1].finish)

    def choice(self, index: int, text: str, tokens: list[TextToken], finish: str | None) -> dict[str, Any]:
        wanted = self.asked.body.logprobs is not None
        logprobs = legacy_logprobs(tokens, self.service.tokenizer) if wanted else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def prompt_of(self, number: int) -> Prompt:
        return self.asked.prompts[number // self.asked.body.tries]

    def echo(self, number: int) -> str:
        return self.prompt_of(number).text if self.asked.body.echo else ""

    def echo_length(self, number: int) -> int:
        return len(self.echo(number))

    def echoed(self, number: int) -> list[TextToken]:
        """The prompt's tokens with their scores, when they were asked for."""
        sequence = self.asked.sequences[number]
        return spelled(self.prompt_of(number), sequence.prompt_scores, self.service.tokenizer) if sequence.params.score_prompt else []

    def best(self) -> list[tuple[int, int]]:
        """(index of the choice, number of its sequence): for each prompt the `n` of highest mean log probability."""
        shown, tries = self.asked.body.choices, self.asked.body.tries
        numbers = range(len(self.asked.sequences))
        groups = [numbers[start : start + tries] for start in range(0, len(numbers), tries)]
        kept = [number for group in groups for number in (group if shown == tries else sorted(group, key=self.rank)[:shown])]
        return list(enumerate(kept))

    def rank(self, number: int) -> float:
        scores = self.asked.sequences[number].scores
        return -sum(one.logprob for one in scores) / len(scores) if scores else math.inf

    def usage(self) -> dict[str, int]:
        """Prompts count once each, however many choices they have; every token written counts, shown or not."""
        prompt_tokens = sum(len(prompt.ids) for prompt in self.asked.prompts)
        completion_tokens = sum(len(sequence.output) for sequence in self.asked.sequences)
        return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": prompt_tokens + completion_tokens}

    def timings(self) -> Timings:
        return timings(self.asked.sequences, self.service.expected_per_second)

    def frame(self, choices: Sequence[dict[str, Any]], created: int) -> dict[str, Any]:
        """The object around the choices."""
        return {"id": self.asked.id, "object": "text_completion", "created": created, "model": self.service.model, "choices": list(choices)}


def shifted(token: TextToken, base: int) -> TextToken:
    return TextToken(token.text, token.offset + base, token.scored)


def spelled(prompt: Prompt, scores: Sequence[Scored | None], tokenizer: Tokenizer) -> list[TextToken]:
    """Each token of a prompt with the text it adds."""
    stream = TextStream(IncrementalDecoder(tokenizer))
    for token in prompt.ids:
        stream.push(token)
    stream.close()
    spans = [(stream.start(number), end) for number, end in enumerate(stream.ends)]
    return [TextToken(stream.text[a:b], a, scored) for (a, b), scored in zip(spans, scores, strict=True)]


def legacy_logprobs(tokens: list[TextToken], tokenizer: Tokenizer) -> dict[str, list[Any]]:
    """The first token of a prompt has no log probability. A token's text is what it adds, so that the tokens join to the text."""
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [None if token.scored is None else finite(token.scored.logprob) for token in tokens],
        "top_logprobs": [None if token.scored is None else alternatives(token.scored, tokenizer) for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }


def alternatives(scored: Scored, tokenizer: Tokenizer) -> dict[str, float]:
    """The likeliest tokens and the chosen one, by how they show. Of two that show the same (halves of characters) the likelier stays."""
    table: dict[str, float] = {}
    for token, logprob in (*scored.top, (scored.token, scored.logprob)):
        table.setdefault(tokenizer.piece(token), finite(logprob))
    return table


def finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
