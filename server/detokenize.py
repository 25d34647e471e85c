"""TextStream: tokens in, text that may leave out. No half of a stop string and no half of a character ever leaves.

Knows no tokenizer beyond a decoder that gives whole characters, and nothing of sampling or HTTP.
"""

from typing import Protocol


class Decoder(Protocol):
    def push(self, token_id: int) -> str:
        """The whole characters that this token completes."""

    def finish(self) -> str:
        """What is left when no token follows."""


class TextStream:
    """The output text of one sequence. A stop string ends it, and is not part of it.

    Which stop string ends the text does not depend on how the text was cut into tokens: the one complete first wins, of several
    complete at the same character the longest. `ends[i]` is where the text of token i ends; a token may have none.
    """

    def __init__(self, decoder: Decoder, stops: tuple[str, ...] = ()) -> None:
        assert all(stops), "an empty stop string stops everything"
        self.text = ""
        self.ends: list[int] = []
        self.stopped = False
        self._decoder = decoder
        self._stops = stops
        self._closed = False
        self._sent_chars = 0
        self._sent_tokens = 0

    def push(self, token_id: int) -> None:
        self._append(self._decoder.push(token_id))
        self.ends.append(len(self.text))

    def push_silent(self) -> None:
        """A token that ends the text and adds none."""
        self.ends.append(len(self.text))

    def close(self) -> None:
        """No token follows: everything left may leave."""
        if not self.stopped:
            self._append(self._decoder.finish())
        self._closed = True
        if self.ends:
            self.ends[-1] = len(self.text)

    def start(self, number: int) -> int:
        """Where the text of token `number` begins."""
        return self.ends[number - 1] if number else 0

    @property
    def safe(self) -> int:
        """How many characters may leave: all but an end that could become a stop string."""
        if self._closed or self.stopped:
            return len(self.text)
        return len(self.text) - max((overhang(self.text, stop) for stop in self._stops), default=0)

    def take(self) -> tuple[str, int, int]:
        """The text that may leave and has not, and the range [first, last) of tokens that go with it."""
        safe, first, begin = self.safe, self._sent_tokens, self._sent_chars
        while self._sent_tokens < len(self.ends) and self.ends[self._sent_tokens] <= safe:
            self._sent_tokens += 1
        self._sent_chars = safe
        return self.text[begin:safe], first, self._sent_tokens

    def _append(self, piece: str) -> None:
        before = len(self.text)
        self.text += piece
        found = [self._find(stop, before) for stop in self._stops]
        hits = [hit for hit in found if hit is not None]
        if hits:
            self._cut(min(hits)[1])

    def _find(self, stop: str, before: int) -> tuple[int, int] | None:
        """(end, start) of the first `stop` that was not complete when the text had `before` characters."""
        start = self.text.find(stop, max(0, before - len(stop) + 1))
        return None if start < 0 else (start + len(stop), start)

    def _cut(self, length: int) -> None:
        self.stopped = True
        self.text = self.text[:length]
        self.ends = [min(end, length) for end in self.ends]


def overhang(text: str, stop: str) -> int:
    """The longest end of `text` that is a beginning of `stop`, and not all of it."""
    longest = min(len(stop) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
