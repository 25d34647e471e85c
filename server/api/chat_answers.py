"""Choices in the shape of /v1/chat/completions: messages, deltas, and log probabilities token by token."""

from dataclasses import dataclass

from server.api.answers import Json, Request, finite, joined
from server.sequence import Delta, TextToken


@dataclass(frozen=True, slots=True)
class ChatAnswers:
    request: Request

    def chunks(self, number: int, delta: Delta, *, first: bool) -> list[Json]:
        """Of each sequence the first says who speaks, and the last why it ended; between them there is text."""
        made = [self._chunk(number, {"role": "assistant", "content": ""})] if first else []
        if delta.text or delta.tokens:
            made.append(self._chunk(number, {"content": delta.text}) | self._logprobs(list(delta.tokens)))
        if delta.finish is not None:
            made.append(self._chunk(number, {}) | {"finish_reason": delta.finish})
        return made

    def whole(self, number: int, deltas: list[Delta], index: int) -> Json:
        message = {"role": "assistant", "content": joined(deltas), "refusal": None}
        logprobs = self._logprobs([token for delta in deltas for token in delta.tokens])
        return {"index": index, "message": message, "finish_reason": deltas[-1].finish} | logprobs

    def frame(self, choices: list[Json], created: int, *, streamed: bool) -> Json:
        return self.request.frame("chat.completion.chunk" if streamed else "chat.completion", choices, created)

    def _chunk(self, number: int, delta: Json) -> Json:
        return {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}

    def _logprobs(self, tokens: list[TextToken]) -> Json:
        if self.request.asked.body.alternatives is None:
            return {"logprobs": None}
        return {"logprobs": {"content": [self._entry(token) for token in tokens], "refusal": None}}

    def _entry(self, token: TextToken) -> Json:
        """A token's text is what it adds, so that the tokens join to the text; its bytes are its own."""
        assert token.scored is not None
        top = [self._spelled(one, logprob, self.request.service.tokenizer.piece(one)) for one, logprob in token.scored.top]
        return self._spelled(token.scored.token, token.scored.logprob, token.text) | {"top_logprobs": top}

    def _spelled(self, token: int, logprob: float, text: str) -> Json:
        return {"token": text, "logprob": finite(logprob), "bytes": list(self.request.service.grammars.bytes_of(token))}
