"""The values in a GGUF header, read one after the other within the bounds of the file. Torch-free."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from models.errors import BadCheckpoint

WINDOW_BYTES = 1 << 18  # read at a time
MOST_STRING = 1 << 22  # bytes; chat templates, the longest, have some 10,000
MOST_ITEMS = 1 << 24  # of an array; the largest vocabularies have 2**18 pieces
MOST_HEADER = 1 << 28  # bytes up to the first tensor: a vocabulary and its merges take some 10 MB

STRING, ARRAY, BOOL = 8, 9, 7
FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "B", 10: "Q", 11: "q", 12: "d"}  # as `struct` calls them


@dataclass(slots=True)
class Cursor:
    """Reads forward through the header of a file, never past its end: BadCheckpoint when it is shorter than it claims."""

    path: Path
    file: BinaryIO
    at: int = 0
    size: int = 0
    _window: bytes = b""
    _start: int = field(default=0)

    def __post_init__(self) -> None:
        self.size = self.file.seek(0, 2)

    @property
    def left(self) -> int:
        return min(self.size, MOST_HEADER) - self.at

    def take(self, count: int) -> bytes:
        begin = self._reach(count)
        self.at += count
        return self._window[begin : begin + count]

    def skip(self, count: int) -> None:
        if count > self.left:
            raise BadCheckpoint(self.path, f"is truncated or corrupt: {count} bytes wanted at byte {self.at} of its header")
        self.at += count

    def _reach(self, count: int) -> int:
        """Where in the window the next `count` bytes begin, once they are there."""
        begin = self.at - self._start
        if begin + count > len(self._window) or begin < 0:
            if count > self.left:
                raise BadCheckpoint(self.path, f"is truncated or corrupt: {count} bytes wanted at byte {self.at} of its header")
            self.file.seek(self.at)
            self._window, self._start, begin = self.file.read(max(count, min(WINDOW_BYTES, self.size - self.at))), self.at, 0
            if len(self._window) < count:
                raise BadCheckpoint(self.path, "was cut while it was read")
        return begin

    def number(self, code: str) -> int | float:
        (value,) = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))
        assert isinstance(value, int | float)
        return value

    def u32(self) -> int:
        return int(self.number("I"))

    def u64(self) -> int:
        return int(self.number("Q"))

    def string(self) -> bytes:
        length = self.u64()
        if length > MOST_STRING:
            raise BadCheckpoint(self.path, f"is corrupt: a string of {length} bytes at byte {self.at} of its header")
        return self.take(length)


@dataclass(frozen=True, slots=True)
class Array:
    """`count` items of one type that begin at byte `offset` of the file."""

    path: Path
    type: int
    count: int
    offset: int

    def strings(self) -> Iterator[bytes]:
        """The items, read now."""
        assert self.type == STRING
        with self.path.open("rb") as file:
            cursor = Cursor(self.path, file, self.offset)
            for _ in range(self.count):
                yield cursor.string()

    def numbers(self) -> tuple[int | float, ...]:
        """The items, read now."""
        code = FIXED[self.type]
        with self.path.open("rb") as file:
            data = Cursor(self.path, file, self.offset).take(self.count * struct.calcsize("<" + code))
        return struct.unpack(f"<{self.count}{code}", data)


def read_value(cursor: Cursor, key: str) -> object:
    """A bool, int, float, str (bytes when it is not UTF-8), or an Array of which only the place is known."""
    kind = cursor.u32()
    if kind == STRING:
        return _text(cursor.string())
    if kind == ARRAY:
        return _read_array(cursor, key)
    return _read_fixed(cursor, key, kind)


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _read_fixed(cursor: Cursor, key: str, kind: int) -> object:
    if kind not in FIXED:
        raise BadCheckpoint(cursor.path, f"is corrupt: key {key!r} is of type {kind}, which there is not")
    value = cursor.number(FIXED[kind])
    if kind != BOOL:
        return value
    if value not in (0, 1):
        raise BadCheckpoint(cursor.path, f"is corrupt: key {key!r} is neither true nor false")
    return bool(value)


def _read_array(cursor: Cursor, key: str) -> Array:
    """Walks over the array."""
    kind, count = cursor.u32(), cursor.u64()
    if kind not in FIXED and kind != STRING:
        raise BadCheckpoint(cursor.path, f"is corrupt: key {key!r} is an array of type {kind}, which is not supported")
    item_bytes = 8 if kind == STRING else struct.calcsize("<" + FIXED[kind])
    if count > min(MOST_ITEMS, cursor.left // item_bytes):
        raise BadCheckpoint(cursor.path, f"is truncated or corrupt: key {key!r} claims {count} items")
    array = Array(cursor.path, kind, count, cursor.at)
    if kind != STRING:
        cursor.skip(count * item_bytes)
        return array
    for _ in range(count):
        cursor.skip(cursor.u64())
    return array
