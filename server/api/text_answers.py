"""Choices in the legacy shape of /v1/completions: text, echo, and log probabilities in four lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.tokenizer import IncrementalDecoder, Tokenizer
from server.api.answers import Json, Request, finite, joined
from server.api.asked import Prompt
from server.detokenize import TextStream
from server.sequence import Delta, Scored, TextToken


@dataclass(frozen=True, slots=True)
class TextAnswers:
    request: Request

    def chunks(self, number: int, delta: Delta, *, first: bool) -> list[Json]:
        """The first one of each sequence begins with the echo."""
        text, base = delta.text, len(self._echo(number))
        found = [shifted(token, base) for token in delta.tokens]
        if first:
            text, found = self._echo(number) + text, self._echoed(number) + found
        return [self._choice(number, text, found, delta.finish)]

    def whole(self, number: int, deltas: list[Delta], index: int) -> Json:
        base = len(self._echo(number))
        tokens = [shifted(token, base) for delta in deltas for token in delta.tokens]
        return self._choice(index, self._echo(number) + joined(deltas), self._echoed(number) + tokens, deltas[-1].finish)

    def frame(self, choices: list[Json], created: int, *, streamed: bool) -> Json:
        return self.request.frame("text_completion", choices, created)

    def _choice(self, index: int, text: str, tokens: list[TextToken], finish: str | None) -> Json:
        wanted = self.request.asked.body.alternatives is not None
        logprobs = legacy_logprobs(tokens, self.request.service.tokenizer) if wanted else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _echo(self, number: int) -> str:
        return self.request.asked.prompt_of(number).text if self.request.asked.body.echoes else ""

    def _echoed(self, number: int) -> list[TextToken]:
        """The prompt's tokens with their scores, when they were asked for."""
        sequence, tokenizer = self.request.asked.sequences[number], self.request.service.tokenizer
        return spelled(self.request.asked.prompt_of(number), sequence.prompt_scores, tokenizer) if sequence.params.score_prompt else []


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
