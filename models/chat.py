"""ChatTemplate: messages to the text a model was trained to see, by the Jinja template that comes with it.

Templates are other people's programs, so they run in Jinja's sandbox, with a bound on what they write, on the sums and products they
compute, and on their time: every round of a loop and every call of a macro looks at the clock.
Knows no tokenizer and no HTTP. Torch-free.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from models.errors import BadCheckpoint

LONGEST_TEXT = 1 << 24  # characters of a rendered chat
LONGEST_REPEAT = 1 << 20  # characters or items that one multiplication may make
LONGEST_SECONDS = 2.0  # of the thread's own time; chats of thousands of messages take milliseconds
SOURCE_LIMIT_BYTES = 1 << 20
_UNTIL: ContextVar[float] = ContextVar("_UNTIL")
Body = TypeVar("Body", nodes.For, nodes.Macro, nodes.CallBlock)


class ChatRefused(Exception):
    """The template does not take these messages, or it is broken; the message says which."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as chat templates expect it: no blank lines for tags, break and continue, JSON that is not escaped for HTML."""

    intercepted_binops = frozenset({"+", "*", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        self.filters["tojson"] = to_json
        self.globals |= {"raise_exception": refuse, "strftime_now": strftime_now}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Bounds `'x' * 10**10`."""
        if operator == "+":
            check_sum(left, right)
        elif operator == "**" or repeat_of(left, right) > LONGEST_REPEAT:
            raise SecurityError(f"{operator} makes too much")
        return super().call_binop(context, operator, left, right)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template: nodes.Template = Bounded().visit(super()._parse(source, name, filename))
        return template

    @property
    def in_time(self) -> bool:
        """What loops and macros begin with; ChatRefused when the time is over."""
        if time.thread_time() > _UNTIL.get():
            raise ChatRefused(f"the template takes longer than {LONGEST_SECONDS:g} seconds")
        return True

    def joined(self, *parts: object) -> str:
        """What `~` is."""
        texts = [str(part) for part in parts]
        check_sum(*texts)
        return "".join(texts)


class Bounded(NodeTransformer):
    """Puts a look at the clock into every loop and every macro of a template, and our own `~` into it."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        if node.test is not None:
            node.test = nodes.And(nodes.EnvironmentAttribute("in_time"), node.test)
        return self._looking(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        return self._looking(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.CallBlock:
        return self._looking(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:
        self.generic_visit(node)
        return nodes.Call(nodes.EnvironmentAttribute("joined"), node.nodes, [], None, None, lineno=node.lineno)

    def _looking(self, node: Body) -> Body:
        node.body.insert(0, nodes.ExprStmt(nodes.EnvironmentAttribute("in_time"), lineno=node.lineno))
        self.generic_visit(node)
        return node


def check_sum(*parts: Any) -> None:
    """SecurityError for texts and lists that are too long together: doubled forty times, one character is a terabyte."""
    if sum(len(part) for part in parts if hasattr(part, "__len__")) > LONGEST_TEXT:
        raise SecurityError(f"+ or ~ makes more than {LONGEST_TEXT} characters")


def repeat_of(left: Any, right: Any) -> int:
    """Items that a product makes; 0 for numbers."""
    sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
    return len(sized) * times if hasattr(sized, "__len__") and isinstance(times, int) else 0


def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    """The signature is that of the templates' own convention."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(message: object) -> NoReturn:
    raise ChatRefused(str(message))


def strftime_now(form: str) -> str:
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
            return cls(Sandbox().from_string(source), specials)
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
        _UNTIL.set(time.thread_time() + LONGEST_SECONDS)
        try:
            for part in self.template.generate(messages=list(messages), add_generation_prompt=True, **self.specials):
                parts.append(part)
                length += len(part)
                if length > LONGEST_TEXT:
                    raise ChatRefused(f"the text is longer than {LONGEST_TEXT} characters")
        except ChatRefused:
            raise
        except Exception as error:  # a template is a program: anything may be raised in it
            raise ChatRefused(f"{type(error).__name__}: {error}") from None
        return "".join(parts)
