"""Sandbox: Jinja for programs of strangers. Nothing outside is reached, and memory and time are bounded.

Jinja's own sandbox keeps a template from the inside of Python; it does not keep it from `'x'.center(10**9)`. So here

* every value that is made is small: what filters, methods and operators would make is computed before it is made (`extent.py`), and lists
  and dictionaries that are written down are looked at, which keeps `x = [x, x]` from doubling for ever;
* what is made and what is written, anywhere, is counted, all together;
* loops, calls, operators and comparisons look at the clock;
* what no chat template needs is not there: methods of bytes and numbers, `lipsum`, `urlize` and the like.
"""

import json
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from models.extent import FILTERS, LONGEST_INDENT, METHODS, drained, extent, product

LONGEST_TEXT = 1 << 24  # characters of any value
LONGEST_REPEAT = 1 << 20  # characters or items that one multiplication may make, and what is filled up to a width
LONGEST_DIGITS = 1 << 10  # of a whole number
MOST_MADE = 8 * LONGEST_TEXT  # characters and items, in one rendering: variables hold them, and what macros write their callers write again
LONGEST_SECONDS = 2.0  # of the thread's own time; chats of thousands of messages take milliseconds
COUNTED = 64  # characters of a piece of the template itself: shorter ones are bounded by the clock
REFUSED_FILTERS = ("pprint", "striptags", "urlize", "wordwrap", "xmlattr")
REFUSED_GLOBALS = ("lipsum",)
KNOWN_METHODS = frozenset(
    "capitalize casefold center count endswith find format index isalnum isalpha isascii isdecimal isdigit islower isnumeric isspace "
    "istitle isupper join ljust lower lstrip partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split "
    "splitlines startswith strip swapcase title upper zfill".split()
)
OF_JINJA = ("_loop_vars", "_block_vars")  # what it tells a call in a loop
NUMBERS = (int, float, bytes)
Body = TypeVar("Body", nodes.For, nodes.Macro, nodes.CallBlock)


class OutOfTime(Exception):
    """The template has used up what one rendering may take."""


@dataclass(slots=True)
class Allowance:
    """What is left for one rendering."""

    until: float  # on the thread's clock
    characters: int

    def spend(self, characters: int) -> None:
        self.characters -= characters
        if self.characters < 0:
            raise SecurityError(f"the template makes more than {MOST_MADE} characters")


_ALLOWANCE: ContextVar[Allowance | None] = ContextVar("_ALLOWANCE", default=None)


def begin() -> None:
    """A new rendering, in this context."""
    _ALLOWANCE.set(Allowance(time.thread_time() + LONGEST_SECONDS, MOST_MADE))


def look() -> Allowance:
    """At the clock. Jinja computes constants while it compiles; then there is none, and they are left for later."""
    left = _ALLOWANCE.get()
    if left is None:
        raise SecurityError("nothing is computed before a rendering")
    if time.thread_time() > left.until:
        raise OutOfTime(f"the template takes longer than {LONGEST_SECONDS:g} seconds")
    return left


def made(value: Any, by: str) -> Any:
    """`value`, when it is small enough; it counts as much as it takes, without what it holds."""
    left = look()
    if isinstance(value, str | list | tuple | dict):
        check(extent(value), by)
        left.spend(len(value))
    return value


def written(value: Any) -> Any:
    """What every value passes on its way into the text."""
    look().spend(extent(value))
    return value


def check(characters: int, what: str, limit: int = LONGEST_TEXT) -> None:
    look()
    if characters > limit:
        raise SecurityError(f"{what} makes more than {limit} characters")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as chat templates expect it: no blank lines for tags, break and continue, JSON that is not escaped for HTML."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], finalize=written)
        self.filters["tojson"] = to_json
        self.filters = {name: bounded(name, filter) for name, filter in self.filters.items() if name not in REFUSED_FILTERS}
        self.globals = {name: value for name, value in self.globals.items() if name not in REFUSED_GLOBALS}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Bounds `'x' * 10**10`, and numbers that are squared again and again."""
        if operator == "%" and isinstance(left, str):
            check(FILTERS["format"](left, right), operator)
        elif operator == "+":
            check(extent(left) + extent(right), operator)
        elif operator == "**":
            raise SecurityError(f"{operator} makes too much")
        check(product(left, right) if operator == "*" else 0, operator, LONGEST_REPEAT)
        if isinstance(left, int) and isinstance(right, int):
            check(extent(left) + extent(right), operator, LONGEST_DIGITS)
        return made(super().call_binop(context, operator, left, right), operator)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """The names are Jinja's, so that a template may use any for its arguments."""
        text, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(text, str) and name in METHODS:
            args = (drained(args[0]), *args[1:]) if name == "join" and args else args
            check(METHODS[name](text, *args, **{key: value for key, value in kwargs.items() if key not in OF_JINJA}), name)
        look()
        return made(super().call(__context, __obj, *args, **kwargs), name or "this")

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        inner = super().wrap_str_format(value)
        if inner is None or value.__name__ != "format":
            return None

        def format(*args: Any, **kwargs: Any) -> str:
            check(FILTERS["format"](value.__self__, *args, **kwargs), "format")
            return str(made(inner(*args, **kwargs), "format"))

        return format

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        known = attr in KNOWN_METHODS if isinstance(obj, str) else not isinstance(obj, NUMBERS)
        return known and super().is_safe_attribute(obj, attr, value)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template: nodes.Template = Bounded().visit(super()._parse(source, name, filename))
        return template

    @property
    def in_time(self) -> bool:
        """What loops, macros, conditions and comparisons begin with."""
        look()
        return True

    def limited(self, value: Any) -> Any:
        return made(value, "a list, a dictionary or a slice")

    def joined(self, *parts: object) -> str:
        """What `~` is."""
        check(sum(map(extent, parts)), "~")
        return str(made("".join(map(str, parts)), "~"))

    def wrote(self, characters: int) -> str:
        """So many of the template's own were written."""
        look().spend(characters)
        return ""


def bounded(name: str, filter: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that looks at what it would make, and at what it made. Some get Jinja's context first."""
    first = int(hasattr(filter, "jinja_pass_arg"))

    @wraps(filter)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        look()
        if name == "join":
            args = (*args[:first], drained(args[first]), *args[first + 1 :])
        if name in FILTERS:
            check(FILTERS[name](*args[first:], **kwargs), name)
        return made(filter(*args, **kwargs), name)

    return filtered


def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    """The signature is that of the templates' own convention. Written piece by piece: levels and escapes make it longer than it looks."""
    if isinstance(indent, int) and indent > LONGEST_INDENT:
        raise SecurityError(f"tojson: an indent of more than {LONGEST_INDENT}")
    check(sum(map(extent, separators or ())), "tojson", LONGEST_INDENT)
    coder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    parts, length = list[str](), 0
    for part in coder.iterencode(value):
        parts.append(part)
        length += len(part)
        check(length, "tojson")
    return "".join(parts)


class Bounded(NodeTransformer):
    """Puts looks at the clock and at sizes into a template, and our own `~` into it."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        if node.test is not None:
            node.test = in_time(node.test)
        return self._looking(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        return self._looking(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.CallBlock:
        return self._looking(node)

    def visit_If(self, node: nodes.If) -> nodes.If:
        self.generic_visit(node)
        node.test = in_time(node.test)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Expr:
        self.generic_visit(node)
        return in_time(node)

    def visit_Test(self, node: nodes.Test) -> nodes.Expr:
        self.generic_visit(node)
        return in_time(node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        """Slices are copies."""
        self.generic_visit(node)
        return of_sandbox("limited", [node], node.lineno) if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List) -> nodes.Expr:
        return self._limited(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:
        return self._limited(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        """One that is assigned to is no value."""
        return self._limited(node) if node.ctx == "load" else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:
        self.generic_visit(node)
        return of_sandbox("joined", node.nodes, node.lineno)

    def visit_Output(self, node: nodes.Output) -> nodes.Output:
        self.generic_visit(node)
        characters = sum(len(part.data) for part in node.nodes if isinstance(part, nodes.TemplateData))
        if characters >= COUNTED:
            node.nodes.insert(0, of_sandbox("wrote", [nodes.Const(characters)], node.lineno))
        return node

    def _limited(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return of_sandbox("limited", [node], node.lineno)

    def _looking(self, node: Body) -> Body:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(nodes.EnvironmentAttribute("in_time"), lineno=node.lineno))
        return node


def in_time(node: nodes.Node) -> nodes.Expr:
    """An expression, after a look at the clock."""
    return nodes.And(nodes.EnvironmentAttribute("in_time"), node, lineno=node.lineno)


def of_sandbox(name: str, args: list[nodes.Expr], line: int) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), args, [], None, None, lineno=line)
