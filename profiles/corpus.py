"""The text a profile is recorded over: files a person names, or the sources that come with every Python. Knows no model.

Files take turns, PIECE_BYTES of each at a time, until there are tokens enough; so no file is ever held whole, and a budget of
tokens is spread over all of them. Each piece goes to the half of the text that has fewer tokens so far: the halves are
interleaved, and comparable.
"""

import hashlib
import platform
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import BadValue, Unavailable

PIECE_BYTES = 1 << 13  # two to three thousand tokens, more than a chunk
CHUNK_TOKENS = 512  # a sequence of this length starts at position 0
DEFAULT_TOKENS = 100_000  # a neuron that fires at 1 % of tokens is then counted to ±3 %
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "__pycache__"}

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens that stand next to each other in the text, at most CHUNK_TOKENS, all in one half of it."""

    tokens: tuple[int, ...]
    in_first_half: bool


@dataclass(frozen=True, slots=True)
class Text:
    """A corpus, cut to a number of tokens. `description` names it, with its bytes and a hash of them."""

    chunks: tuple[Chunk, ...]
    description: str

    @property
    def tokens(self) -> int:
        return sum(len(chunk.tokens) for chunk in self.chunks)


def read_files(paths: Sequence[Path], encode: Encode, *, tokens: int, context: int) -> Text:
    """The first `tokens` tokens of UTF-8 text files; BadValue names the one that cannot be used."""
    for path in paths:
        check_file(path)
    return _read(paths, names_of(paths), encode, tokens, context)


def read_standard_library(encode: Encode, *, tokens: int, context: int) -> Text:
    """The first `tokens` tokens of the standard library's sources and docstrings, its tests left out, files in the order of a hash."""
    paths = standard_library()
    name = f"the standard library of {platform.python_implementation()} {platform.python_version()} ({len(paths)} files)"
    return _read(paths, name, encode, tokens, context)


def standard_library() -> list[Path]:
    """Source files in UTF-8, in the order of a hash of their names, so that neighbours have nothing in common."""
    root = Path(sysconfig.get_paths()["stdlib"])
    kept = [path for path in _sources(root) if _is_text(path)]
    if not kept:
        raise Unavailable("the standard library", f"no sources under {root}; name a text with --corpus")
    return sorted(kept, key=lambda path: hashlib.sha256(path.relative_to(root).as_posix().encode()).digest())


def _sources(folder: Path) -> Iterator[Path]:
    """Python files under `folder`, but for LEFT_OUT."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix == ".py":
            yield path
        elif path.is_dir() and path.name not in LEFT_OUT:
            yield from _sources(path)


def _is_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return False


def check_file(path: Path) -> None:
    """Raises BadValue unless there is something to read; what it says is checked when it is read."""
    if path.is_dir():
        raise BadValue("--corpus", str(path), "is a folder; name the text files in it")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise BadValue("--corpus", str(path), f"cannot be read: {error.strerror}") from None
    if not first:
        raise BadValue("--corpus", str(path), "is empty")


def names_of(paths: Sequence[Path]) -> str:
    shown = ", ".join(path.name for path in paths[:3])
    return shown if len(paths) <= 3 else f"{shown} and {len(paths) - 3} more"


def _read(paths: Sequence[Path], name: str, encode: Encode, tokens: int, context: int) -> Text:
    if tokens < 1:
        raise BadValue("--tokens", tokens, "is not a number of tokens")
    digest, count, sizes = hashlib.sha256(), 0, {True: 0, False: 0}
    chunks: list[Chunk] = []
    for piece in pieces(paths):
        wanted = tokens - sum(sizes.values())
        if wanted <= 0:
            break
        ids = encode(piece)[:wanted]
        half = sizes[True] <= sizes[False]
        chunks += (Chunk(part, half) for part in cut(ids, min(context, CHUNK_TOKENS)))
        sizes[half] += len(ids)
        count += len(piece.encode())
        digest.update(piece.encode())
    return Text(tuple(chunks), f"{name}, {count} bytes, sha256 {digest.hexdigest()[:16]}")


def cut(ids: Sequence[int], length: int) -> Iterator[tuple[int, ...]]:
    """[a, b, c, d, e] by 2 -> (a, b), (c, d), (e,)."""
    for start in range(0, len(ids), length):
        yield tuple(ids[start : start + length])


def pieces(paths: Sequence[Path]) -> Iterator[str]:
    """The files' text, a piece of each in turn, until all are read."""
    offsets = dict.fromkeys(paths, 0)
    while offsets:
        for path in list(offsets):
            data = read_piece(path, offsets[path])
            if data:
                offsets[path] += len(data)
                yield decoded(path, data, offsets[path] - len(data))
            else:
                del offsets[path]


def read_piece(path: Path, offset: int) -> bytes:
    """At most PIECE_BYTES from `offset`, cut after a line where there is one, never inside a character; empty at the end."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(PIECE_BYTES)
    except OSError as error:
        raise BadValue("--corpus", str(path), f"cannot be read: {error.strerror}") from None
    if len(data) < PIECE_BYTES:
        return data
    return data[: data.rfind(b"\n") + 1] or data[: _character_end(data)]


def _character_end(data: bytes) -> int:
    """Where the last character that may be unfinished begins."""
    end = len(data) - 1
    while end > len(data) - 4 and data[end] & 0xC0 == 0x80:
        end -= 1
    return end


def decoded(path: Path, data: bytes, offset: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadValue("--corpus", str(path), f"is not UTF-8 text (byte {offset + error.start})") from None
