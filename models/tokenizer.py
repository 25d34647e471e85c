"""Text to token ids and back, through `tokenizers`. Knows which tokens end a text; knows no models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers

from models.errors import BadCheckpoint
from models.foreign_json import read_json
from models.older_tokenizer import MERGES, PIECES, VOCAB, read_older
from models.vocabulary import fitted

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """`bos` is put first where the model wants it; `chat_template` is Jinja source or None, `specials` are the tokens it may name."""

    core: tokenizers.Tokenizer
    bos: int | None
    chat_template: str | None
    specials: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, vocab: int | None = None) -> "Tokenizer":
        """`tokenizer.json`, or what older repositories have, and `tokenizer_config.json`; BadCheckpoint says what is wrong.

        With `vocab`, the rows of the model's embedding, it gives no other ids (`vocabulary.fitted`).
        """
        path, core = folder / TOKENIZER_FILE, read_core(folder)
        core = core if vocab is None else fitted(core, vocab, path)
        core.no_truncation()
        core.no_padding()
        settings = read_json(folder / "tokenizer_config.json")
        bos = _content(settings.get("bos_token")) if settings.get("add_bos_token") else None
        return cls(core, None if bos is None else core.token_to_id(bos), _read_template(folder, settings), _specials(settings))

    @property
    def vocab_size(self) -> int:
        return int(self.core.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids; with `special`, what the model expects before a text is put there."""
        ids: list[int] = self.core.encode(text, add_special_tokens=special).ids
        if special and self.bos is not None and ids[:1] != [self.bos]:
            return [self.bos, *ids]
        return ids

    def encode_rendered(self, text: str) -> list[int]:
        """Token ids of a text that a chat template wrote. Only a `bos` that the template left out is put there."""
        ids = self.encode(text, special=False)
        return ids if self.bos is None or ids[:1] == [self.bos] else [self.bos, *ids]

    def decode(self, ids: list[int]) -> str:
        """Text; special tokens are left out. Bytes that are no UTF-8 become U+FFFD."""
        return str(self.core.decode(ids, skip_special_tokens=True))

    def piece(self, token: int) -> str:
        """What one token shows as in a table of log-probabilities; special tokens by their names."""
        return str(self.core.decode([token], skip_special_tokens=False))


def read_core(folder: Path) -> tokenizers.Tokenizer:
    """The pipeline of a folder, whatever files it is kept in."""
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        older = read_older(folder)
        if older is None:
            raise BadCheckpoint(folder, f"has no {TOKENIZER_FILE}, no {PIECES}, and no {VOCAB} with {MERGES}")
        return older
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise BadCheckpoint(path, f"cannot be read: {error}") from None


def _read_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """A file of its own, or a setting: the source, or a list of named ones of which `default` counts."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _specials(settings: Mapping[str, Any]) -> dict[str, str]:
    """'bos_token' -> '<s>', and so on."""
    found = {name: _content(value) for name, value in settings.items() if name.endswith("_token")}
    return {name: content for name, content in found.items() if content is not None}


def _content(token: Any) -> str | None:
    """A special token is a string, or an object that holds one."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


@dataclass(slots=True)
class IncrementalDecoder:
    """Token ids one by one -> text as it becomes certain; what was given, joined, is `decode` of all of them.

    Text is held back while it ends in an unfinished character. Decoding starts at the last point where text was certain,
    with the tokens of the piece before it as context, because what a token shows as can depend on the one before.
    """

    tokenizer: Tokenizer
    _ids: list[int] = field(default_factory=list)
    _context: int = 0  # ids before this are settled and no longer needed
    _given: int = 0  # ids before this have been given as text

    def push(self, token: int) -> str:
        """The text that `token` makes certain, possibly none."""
        self._ids.append(token)
        before, now = self._texts()
        if now.endswith("\ufffd") or len(now) <= len(before):
            return ""
        self._context, self._given = self._given, len(self._ids)
        return now[len(before) :]

    def finish(self) -> str:
        """What was held back."""
        before, now = self._texts()
        self._context = self._given = len(self._ids)
        return now[len(before) :]

    def _texts(self) -> tuple[str, str]:
        """Text of the context alone, and of the context with what is pending."""
        decode = self.tokenizer.decode
        return decode(self._ids[self._context : self._given]), decode(self._ids[self._context :])
