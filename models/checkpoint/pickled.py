"""A pickle, followed and not run: where the tensors of a dict lie in the archive around it. Torch-free.

A pickle is a program that builds an object. This interpreter knows the steps that a dict of tensors is built of, and calls nothing
and imports nothing; whatever else a program wants to do is an error.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.checkpoint.headers import ITEM_BYTES, MOST_DIMENSIONS, MOST_NAME, Entry, is_name
from models.errors import BadCheckpoint

MOST = 1 << 48  # no count of weights is larger
KINDS = {"FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16"}
UNREAD = {"DoubleStorage", "LongStorage", "IntStorage", "ShortStorage", "CharStorage", "ByteStorage", "BoolStorage"}
GLOBALS = {f"torch {kind}" for kind in (*KINDS, *UNREAD)} | {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A stretch of the file."""

    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Global:
    """A name in a pickle. Nothing is imported."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """The bytes that tensors are views of."""

    kind: str
    member: Member


class _Mark:
    """Where a tuple, or the items of a dict, begin on the stack."""


class Unexpected(Exception):
    """A step that no dict of tensors is made of."""


@dataclass(slots=True)
class Interpreter:
    """Follows a pickle. Dict keys are strings, so that nothing deep is ever hashed."""

    path: Path
    folder: str
    members: Mapping[str, Member]
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, program: bytes) -> Any:
        """What the program leaves on the stack."""
        try:
            for step, argument, _ in pickletools.genops(program):
                if step.name == "STOP":
                    return self.stack.pop()
                self.follow(step.name, argument)
        except BadCheckpoint:
            raise
        except Unexpected as error:
            raise BadCheckpoint(self.path, f"does more than hold tensors by name, and is not run: {error}") from None
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise BadCheckpoint(self.path, f"is damaged: its description of tensors makes no sense ({type(error).__name__})") from None
        raise BadCheckpoint(self.path, "is damaged: its description of tensors has no end")

    def follow(self, step: str, argument: Any) -> None:
        if step in ARGUMENTS:
            self.stack.append(argument)
        elif step in VALUES:
            self.stack.append(VALUES[step]())
        elif step in STEPS:
            STEPS[step](self, argument)
        elif step not in ("PROTO", "FRAME"):
            raise Unexpected(f"step {step}")

    def since_mark(self) -> list[Any]:
        """Everything above the last mark, which goes too."""
        at = len(self.stack) - 1
        while not isinstance(self.stack[at], _Mark):
            at -= 1
            if at < 0:
                raise IndexError
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def tuple_of(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise IndexError
        self.stack[-count:] = [items]

    def name(self, name: str) -> None:
        if name not in GLOBALS:
            raise Unexpected(f"it names {name[:MOST_NAME]!r}")
        self.stack.append(Global(name))

    def call(self, argument: Any) -> None:
        """What the function would make, not the function."""
        arguments, function = self.stack.pop(), self.stack.pop()
        match function:
            case Global("collections OrderedDict") if arguments == ():
                self.stack.append({})
            case Global("torch._utils _rebuild_tensor_v2"):
                self.stack.append(self.tensor(*arguments[:4]))
            case Global("torch._utils _rebuild_parameter"):
                self.stack.append(arguments[0])
            case _:
                raise Unexpected("a call")

    def storage(self, argument: Any) -> None:
        word, kind, key, _, _ = self.stack.pop()
        if word != "storage" or not isinstance(kind, Global) or not is_name(key):
            raise ValueError
        member = self.members.get(f"{self.folder}/data/{key}")
        if member is None:
            raise BadCheckpoint(self.path, f"is truncated or damaged: the bytes of part {key!r} are missing")
        self.stack.append(Storage(kind.name.removeprefix("torch "), member))

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> Entry:
        if not isinstance(storage, Storage) or len(shape) > MOST_DIMENSIONS or len(shape) != len(strides):
            raise ValueError
        if any(type(number) is not int or not 0 <= number < MOST for number in (offset, *shape, *strides)):
            raise ValueError
        kind = KINDS.get(storage.kind)
        if kind is None:
            raise BadCheckpoint(self.path, f"holds a tensor stored as {storage.kind}; supported: {', '.join(KINDS)}")
        entry = Entry(self.path, storage.member.offset + offset * ITEM_BYTES[kind], kind, tuple(shape))
        if strides_of(entry.shape, tuple(strides)) != tuple(strides):
            raise BadCheckpoint(self.path, "holds a tensor that is not stored row by row; save it again, made contiguous")
        if offset * ITEM_BYTES[kind] + entry.nbytes > storage.member.nbytes:
            raise BadCheckpoint(self.path, f"is truncated or damaged: a tensor of {entry.nbytes} bytes lies in a part of fewer")
        return entry

    def set_items(self, argument: Any) -> None:
        items = self.since_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.set_item(key, value)

    def set_one(self, argument: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_item(key, value)

    def set_item(self, key: Any, value: Any) -> None:
        if not isinstance(self.stack[-1], dict) or not isinstance(key, str):
            raise Unexpected("it fills something else than a dict of names")
        self.stack[-1][key] = value

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError
        self.stack[-1].extend(items)


def strides_of(shape: tuple[int, ...], given: tuple[int, ...]) -> tuple[int, ...]:
    """Items from one to the next along each dimension when nothing is skipped; a dimension of one item may say anything."""
    strides, step = [], 1
    for count, said in zip(reversed(shape), reversed(given), strict=True):
        strides.append(said if count <= 1 else step)
        step *= max(count, 1)
    return tuple(reversed(strides))


ARGUMENTS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE")
VALUES: dict[str, Callable[[], Any]] = {
    "MARK": _Mark,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}


def _remember(machine: Interpreter, at: Any) -> None:
    machine.memo[len(machine.memo) if at is None else at] = machine.stack[-1]


STEPS: dict[str, Callable[[Interpreter, Any], object]] = {
    "TUPLE1": lambda machine, argument: machine.tuple_of(1),
    "TUPLE2": lambda machine, argument: machine.tuple_of(2),
    "TUPLE3": lambda machine, argument: machine.tuple_of(3),
    "TUPLE": lambda machine, argument: machine.stack.append(tuple(machine.since_mark())),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), _remember),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, at: machine.stack.append(machine.memo[at])),
    "GLOBAL": Interpreter.name,
    "STACK_GLOBAL": lambda machine, argument: machine.name(" ".join(reversed([machine.stack.pop(), machine.stack.pop()]))),
    "REDUCE": Interpreter.call,
    "BINPERSID": Interpreter.storage,
    "BUILD": lambda machine, argument: machine.stack.pop(),  # attributes, which a dict of tensors has no use for
    "SETITEM": Interpreter.set_one,
    "SETITEMS": Interpreter.set_items,
    "APPEND": lambda machine, argument: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, argument: machine.append(machine.since_mark()),
}
