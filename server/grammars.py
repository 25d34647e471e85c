"""Grammars: a text that must be JSON, follow a JSON schema, or match a regular expression, through the library llguidance.

A grammar is checked and its first token found before anything runs. What it may take is bounded: bytes of its source, size when compiled,
and work per token; past a bound it is an error of the request, never a server that hangs.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from models.tokenizer import Tokenizer
from server.guide import GuideFailed

SOURCE_LIMIT_BYTES = 1 << 16
# llguidance works through some 14,000 units of lexer fuel and 20,000 parser items a millisecond: at most 20 ms for one token
STEP_FUEL, STEP_ITEMS, LEXER_STATES, FIRST_FUEL = 200_000, 50_000, 50_000, 1_000_000
JSON_RULES: Any = {"whitespace_pattern": r"[ \n]{1,64}"}  # a small model would write spaces for ever if it might


class BadGrammar(Exception):
    """A schema or an expression that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Form:
    """`source` is a schema, or an expression."""

    kind: Literal["json_schema", "regex"]
    source: dict[str, Any] | str


@dataclass(frozen=True)
class Grammars:
    """Makes guides for one tokenizer. `vocab` is the rows of the model's head; `eos` end a text."""

    tokenizer: Tokenizer
    vocab: int
    eos: frozenset[int]

    @cached_property
    def _tokens(self) -> LLTokenizer | str:
        """Built when first needed: up to a second for a large vocabulary. For a tokenizer that the library cannot read, why not."""
        ends = sorted(token for token in self.eos if token < self.vocab)
        try:
            return LLTokenizer(self.tokenizer.core.to_str(), n_vocab=self.vocab, eos_token=ends or None)
        except ValueError as error:
            return first_line(str(error))

    def prepare(self) -> None:
        """What takes long, when it was not done before."""
        _ = self._tokens

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; of halves of characters, too, where the library can read the tokenizer."""
        if isinstance(self._tokens, str):
            return self.tokenizer.piece(token).encode()
        return self._tokens.decode_bytes([token])

    def guides(self, form: Form, count: int) -> list["MatcherGuide"]:
        """`count` guides at the beginning of a text; BadGrammar when there can be none."""
        if isinstance(self._tokens, str):
            raise BadGrammar(f"this model's tokenizer cannot be guided: {self._tokens}")
        matcher = LLMatcher(self._tokens, compiled(form), log_level=0, limits=limits())
        if matcher.is_error():
            raise BadGrammar(first_line(matcher.get_error()))
        try:
            MatcherGuide(matcher, self.vocab).allowed()
        except GuideFailed as error:
            raise BadGrammar(error.why) from None
        return [MatcherGuide(matcher.deep_copy(), self.vocab) for _ in range(count)]


def limits() -> LLParserLimits:
    return LLParserLimits(
        initial_lexer_fuel=FIRST_FUEL, step_lexer_fuel=STEP_FUEL, step_max_items=STEP_ITEMS, max_lexer_states=LEXER_STATES
    )


def compiled(form: Form) -> str:
    """The library's own text of a grammar."""
    source = form.source if isinstance(form.source, str) else json.dumps(form.source)
    if len(source.encode()) > SOURCE_LIMIT_BYTES:
        raise BadGrammar(f"is larger than {SOURCE_LIMIT_BYTES} bytes")
    try:
        return LLMatcher.grammar_from_regex(source) if form.kind == "regex" else LLMatcher.grammar_from_json_schema(source, JSON_RULES)
    except ValueError as error:
        raise BadGrammar(first_line(str(error))) from None


@dataclass(slots=True)
class MatcherGuide:
    """Where one text stands in its grammar."""

    matcher: LLMatcher
    vocab: int
    _bits: NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        self._bits = np.zeros((self.vocab + 31) // 32, dtype=np.int32)

    def allowed(self) -> NDArray[np.bool_]:
        """[V]. GuideFailed when the grammar became too complex, or no token fits."""
        self.matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: self.vocab].astype(bool)
        if not allowed.any():
            raise GuideFailed("no token of the vocabulary fits the grammar here")
        return allowed

    def push(self, token: int) -> bool:
        self.matcher.consume_token(token)
        self._check()
        return self.matcher.is_stopped()

    def _check(self) -> None:
        if self.matcher.is_error():
            raise GuideFailed(first_line(self.matcher.get_error()))


def first_line(message: str) -> str:
    """The library's message without its source listing, at most 300 characters."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")] or lines
    return errors[0].removeprefix("error: ")[:300] if errors else "cannot be used"
