"""How large things are as text, and what the calls of a template would make, found before it is made. Knows Jinja's namespaces.

Containers count as trees: a list that holds another twice counts it twice, whatever it takes in memory, since writing or comparing it does.
"""

import re
from collections.abc import Callable, ItemsView, Iterable, Mapping, Sequence, Set, ValuesView
from typing import Any

from jinja2.utils import Namespace

DIGITS = re.compile(r"\d+")
NESTED = re.compile(r"\{[^{}]*\{")
LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
SMALL = 64  # characters of a number, a function, a generator; and what a new item of a list costs in bytes
PLACE = 16  # of an item that is there already
ENDLESS = 1 << 60
LONGEST_NUMBER = 9  # digits of a width
LONGEST_INDENT = 64  # of a list in JSON
MOST_DIGITS = 300  # behind a decimal point


def extent(value: object, known: dict[int, int] | None = None) -> int:
    """Characters of `value` as text, about. Every container inside it is looked at once; one inside itself ends there."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, bool | float) or value is None:
        return SMALL
    if isinstance(value, int):
        return value.bit_length() // 3 + 1
    parts = inside(value)
    if parts is None:
        return SMALL
    known = {} if known is None else known
    if id(value) not in known:
        known[id(value)] = 0
        known[id(value)] = sum(PLACE + extent(part, known) for part in parts)
    return known[id(value)]


def inside(value: object) -> Iterable[object] | None:
    """The parts of a container; None for anything else."""
    if isinstance(value, Namespace):
        return list(object.__getattribute__(value, "_Namespace__attrs").values())
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple | Set | ValuesView | ItemsView) else None


def product(value: Any, times: Any) -> int:
    """Of `value * times`, in either order; 0 for numbers."""
    sized, count = (times, value) if isinstance(value, int) else (value, times)
    return extent(sized) * count if hasattr(sized, "__len__") and isinstance(count, int) else 0


def formatted(form: str, *args: Any, **named: Any) -> int:
    """Of `%` and of `{}`: every width and precision that is written in it, or comes as a number, and every field with all that is given."""
    found = DIGITS.findall(form)
    widths = ENDLESS if any(len(digits) > LONGEST_NUMBER for digits in found) else sum(map(int, found))
    given = [*args, *named.values()]
    flat = [part for one in given for part in (one if isinstance(one, tuple) else [one])]
    if "*" in form or NESTED.search(form):
        widths += sum(abs(one) for one in flat if isinstance(one, int)) + sum(formatted(one) for one in flat if isinstance(one, str))
    return len(form) + widths + (form.count("%") + form.count("{")) * sum(map(extent, given))


def replaced(text: Any, old: Any, new: Any, count: int | None = None) -> int:
    whole, taken = str(text), str(old)
    times = whole.count(taken) if taken else len(whole) + 1
    return len(whole) + times * extent(new)


def joined(items: Any, between: Any = "", attribute: Any = None) -> int:
    return extent(items) + len(items) * extent(between) + listed(items)


def listed(items: Any, *args: Any, **named: Any) -> int:
    """Of the letters of a text, each an item; other things are lists already, or come one by one."""
    return SMALL * len(items) if isinstance(items, str) else 0


def cut(text: str, at: str | None = None, most: int = -1) -> int:
    """Of `split`, in items."""
    found = text.count(at) if at else len(text) // 2
    return len(text) + SMALL * (1 + (found if most < 0 else min(found, most)))


def cut_lines(text: str, keepends: bool = False) -> int:
    return len(text) + SMALL * lines(text)


def lines(text: str) -> int:
    return 1 + sum(map(text.count, LINE_BREAKS))


def indented(text: Any, width: Any = 4, first: bool = False, blank: bool = False) -> int:
    whole = str(text)
    return len(whole) + lines(whole) * wide(width)


def wide(width: Any) -> int:
    """Of a number of characters, or of the characters themselves."""
    return abs(width) if isinstance(width, int) else extent(width)


def filled(items: Any, count: Any, fill: Any = None) -> int:
    """Of `batch` and `slice`: lists of so many."""
    return wide(count) * (2 + extent(fill)) + listed(items)


def padded(text: Any, width: Any = 80, fill: Any = None) -> int:
    return extent(text) + wide(width)


def rounded(value: Any, precision: Any = 0, method: str = "common") -> int:
    """10 to the power of the precision is computed."""
    return ENDLESS if wide(precision) > MOST_DIGITS else SMALL


def summed(items: Any, attribute: Any = None, start: Any = 0) -> int:
    """Numbers only: lists are copied once for each."""
    return SMALL if isinstance(start, int | float) else ENDLESS


Sizes = Mapping[str, Callable[..., int]]
FILTERS: Sizes = {
    "batch": filled,
    "center": padded,
    "format": formatted,
    "groupby": listed,
    "indent": indented,
    "join": joined,
    "list": listed,
    "replace": replaced,
    "round": rounded,
    "slice": filled,
    "sort": listed,
    "sum": summed,
}
METHODS: Sizes = {
    "center": padded,
    "join": lambda between, items: joined(items, between),
    "ljust": padded,
    "replace": replaced,
    "rjust": padded,
    "rsplit": cut,
    "split": cut,
    "splitlines": cut_lines,
    "zfill": padded,
}


def drained(items: Any) -> Any:
    """A generator as a list, so that it can be looked at before it is used."""
    return items if isinstance(items, Sequence | Mapping | Set) else list(items)
