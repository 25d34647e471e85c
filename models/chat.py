"""ChatTemplate: messages to the text a model was trained to see, by the Jinja template that comes with it.

Templates are other people's programs, so they run in the `Sandbox`. Knows no tokenizer and no HTTP. Torch-free.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError

from models.errors import BadCheckpoint
from models.sandbox import LONGEST_TEXT, OutOfTime, Sandbox, begin

SOURCE_LIMIT_BYTES = 1 << 20
LONGEST_DATE = 100  # characters of a form of dates


class ChatRefused(Exception):
    """The template does not take these messages, or it is broken; the message says which."""


def refuse(message: object) -> NoReturn:
    raise ChatRefused(str(message))


def strftime_now(form: str) -> str:
    if len(form) > LONGEST_DATE:
        raise SecurityError("strftime_now: the form of a date is too long")
    return datetime.now().strftime(form)


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """`specials` are what a template may name: bos_token, eos_token and the like."""

    template: Template
    specials: Mapping[str, str]

    @classmethod
    def build(cls, source: str, specials: Mapping[str, str], path: Path) -> "ChatTemplate":
        """BadCheckpoint names `path` when the source is no template."""
        try:
            return cls(Sandbox().from_string(source, globals={"raise_exception": refuse, "strftime_now": strftime_now}), specials)
        except (TemplateError, RecursionError) as error:
            raise BadCheckpoint(path, f"is no chat template: {error}") from None

    @classmethod
    def read(cls, path: Path, specials: Mapping[str, str]) -> "ChatTemplate":
        """A file of `--chat-template`."""
        if path.stat().st_size > SOURCE_LIMIT_BYTES:
            raise BadCheckpoint(path, f"is larger than {SOURCE_LIMIT_BYTES} bytes, too large for a chat template")
        try:
            return cls.build(path.read_text(encoding="utf-8"), specials, path)
        except UnicodeDecodeError:
            raise BadCheckpoint(path, "is not UTF-8") from None

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text that ends where the assistant's answer begins. ChatRefused when there is none."""
        parts, length = [], 0
        begin()
        try:
            for part in self.template.generate(messages=list(messages), add_generation_prompt=True, **self.specials):
                parts.append(part)
                length += len(part)
                if length > LONGEST_TEXT:
                    raise ChatRefused(f"the text is longer than {LONGEST_TEXT} characters")
        except (ChatRefused, OutOfTime) as error:
            raise ChatRefused(str(error)) from None
        except Exception as error:  # a template is a program: anything may be raised in it
            raise ChatRefused(f"{type(error).__name__}: {error}") from None
        return "".join(parts)
