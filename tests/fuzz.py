"""Hostile files: damages a good one in many ways, and holds a reader to one clear error each time. Knows no format.

A reader survives a case when it returns, or raises one of our errors with a message of one line; within a second, and without
memory beyond a small multiple of the file. A case is its number: the same number makes the same bytes again.
"""

import random
import re
import resource
import signal
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from models.errors import ThermoclineError

SECONDS = 2.0  # a case takes a few hundred microseconds; this is a hang
ROOM_BYTES = 1 << 30  # of address space, for everything that tracemalloc does not see
OVERHEAD_BYTES = 1 << 20  # of Python memory whatever the file's size: modules, caches, messages
OVERHEAD_SHARE = 64  # of Python memory for a byte of file: the JSON text `[],` is 3 bytes and a list of 56

Damage = Callable[[random.Random, bytearray, range], bytes]
Numbers = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 8)


@dataclass(frozen=True, slots=True)
class Specimen:
    """A good file. `header` are its first bytes, where damage says most."""

    data: bytes
    header: int


def flip(rng: random.Random, data: bytearray, where: range) -> bytes:
    """A few bits."""
    for _ in range(rng.randint(1, 4)):
        data[rng.choice(where)] ^= 1 << rng.randrange(8)
    return bytes(data)


def overwrite(rng: random.Random, data: bytearray, where: range) -> bytes:
    """A number of 1 to 8 bytes, one of those that readers trip over, or near the file's size."""
    number = rng.choice((*Numbers, len(data), len(data) + 1, len(data) // 2, rng.getrandbits(64)))
    width, at = rng.choice((1, 2, 4, 8)), rng.choice(where)
    data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(data)


def truncate(rng: random.Random, data: bytearray, where: range) -> bytes:
    return bytes(data[: rng.choice((rng.choice(where), rng.randrange(len(data)), len(data) - 1))])


def extend(rng: random.Random, data: bytearray, where: range) -> bytes:
    return bytes(data) + rng.randbytes(rng.randint(1, 64))


def remove(rng: random.Random, data: bytearray, where: range) -> bytes:
    at = rng.choice(where)
    del data[at : at + rng.randint(1, 32)]
    return bytes(data)


def insert(rng: random.Random, data: bytearray, where: range) -> bytes:
    at = rng.choice(where)
    data[at:at] = rng.randbytes(rng.randint(1, 16))
    return bytes(data)


def repeat(rng: random.Random, data: bytearray, where: range) -> bytes:
    """A piece of the file stands in another place, over what was there or beside it."""
    start, at, width = rng.choice(where), rng.choice(where), rng.randint(1, 48)
    data[at : at + width * rng.randrange(2)] = data[start : start + width]
    return bytes(data)


def renumber(rng: random.Random, data: bytearray, where: range) -> bytes:
    """A decimal number of a text header becomes another, in the same length or not."""
    found = [match.span() for match in re.finditer(rb"\d{1,40}", data[where.start : where.stop])]
    if not found:
        return flip(rng, data, where)
    at, end = rng.choice(found)
    old = int(data[at:end])
    new = rng.choice((-1, 0, 1, old + 1, old - 1, old * 2, old + rng.randrange(64), len(data), *Numbers, 10 ** rng.randrange(1, 5000)))
    with unlimited_digits():
        data[at:end] = str(new).encode()
    return bytes(data)


@contextmanager
def unlimited_digits() -> Iterator[None]:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


DAMAGES: Sequence[Damage] = (flip, overwrite, truncate, extend, remove, insert, repeat, renumber)


def case(specimens: Sequence[Specimen], number: int) -> bytes:
    """The bytes of one case: one to three damages, three times in four to the header."""
    rng = random.Random(number)
    specimen = rng.choice(specimens)
    data = bytearray(specimen.data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if data:
            where = range(min(specimen.header, len(data)) if rng.random() < 0.75 else len(data))
            data = bytearray(rng.choice(DAMAGES)(rng, data, where))
    return bytes(data)


class Hung(BaseException):
    """Nothing below catches it."""


@dataclass(slots=True)
class Tally:
    """What became of the cases: a fuzz whose every case fails, or none, shows little."""

    read: int = 0
    refused: int = 0


@contextmanager
def guarded() -> Iterator[None]:
    """An alarm clock, a bounded address space, and a count of Python's memory."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hung

    before, (soft, hard) = signal.signal(signal.SIGALRM, ring), resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM_BYTES, hard))
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


def survives(read: Callable[[], object], size_bytes: int, name: str) -> bool:
    """Runs `read` under guard: True when it returned, False when it refused in one line; AssertionError for anything else."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        read()
        said = None
    except ThermoclineError as error:
        said = str(error)
    except Hung:
        raise AssertionError(f"{name}: took more than {SECONDS} s") from None
    except Exception as error:
        raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    peak = tracemalloc.get_traced_memory()[1] - before
    assert peak <= OVERHEAD_BYTES + OVERHEAD_SHARE * size_bytes, f"{name}: {peak} bytes of memory for a file of {size_bytes}"
    assert said is None or said.isprintable(), f"{name}: not one line: {said!r}"
    return said is None


def fuzz(specimens: Sequence[Specimen], path: Path, read: Callable[[], object], cases: range) -> Tally:
    """Writes every case to `path` and calls `read`, which reads it; an AssertionError names the case that was not survived."""
    tally = Tally()
    with guarded():
        for number in cases:
            data = case(specimens, number)
            path.write_bytes(data)
            if survives(read, len(data), f"case {number}"):
                tally.read += 1
            else:
                tally.refused += 1
    return tally
