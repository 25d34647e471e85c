"""What safetensors files hold, without reading it: headers, and a fingerprint of the whole. Torch-free.

The format: 8 bytes of header length, little endian; a JSON header of name -> {dtype, shape, data_offsets}; the bytes. Read
with pread: a truncated file is an error and not a crash, and what was read is not kept mapped.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from models.errors import BadCheckpoint

MOST_HEADER_BYTES = 1 << 24  # 130 bytes a tensor; as Python objects a hostile one takes 30 times as much
MOST_NAME = 200  # characters of a tensor's or a shard's name: a file name has 255 bytes
MOST_DIMENSIONS = 8
SAMPLE_BYTES = 64
AHEAD_BYTES = 1 << 23
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its file, where its bytes begin there, its type and shape."""

    path: Path
    offset: int
    kind: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.kind]

    def sample(self) -> bytes:
        return sampled(self.path, self.offset, self.nbytes)


class Sampled(Protocol):
    """What a fingerprint looks at of a tensor, in whatever container."""

    @property
    def kind(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def sample(self) -> bytes: ...


def sampled(path: Path, offset: int, nbytes: int) -> bytes:
    """A few bytes from the start, the middle and the end of `nbytes` at `offset`."""
    starts = {0, max(0, nbytes // 2 - SAMPLE_BYTES), max(0, nbytes - SAMPLE_BYTES)}
    return b"".join(read_exactly(path, offset + at, min(SAMPLE_BYTES, nbytes - at)) for at in sorted(starts))


def read_exactly(path: Path, offset: int, count: int) -> bytearray:
    """`count` bytes at `offset`; BadCheckpoint when the file ends before."""
    data = bytearray(count)
    read_to(path, offset, memoryview(data))
    return data


def read_to(path: Path, offset: int, view: memoryview) -> None:
    """Fills `view` from `offset` on; BadCheckpoint when the file ends before."""
    count, done = len(view), 0
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise BadCheckpoint(path, f"cannot be read: {error.strerror}") from None
    try:
        _ask_ahead(descriptor, offset, offset + count)
        while done < count:
            got = os.preadv(descriptor, [view[done:]], offset + done)
            if got == 0:
                raise BadCheckpoint(path, f"is truncated: it ends at byte {offset + done}, {count - done} bytes too early")
            done += got
    finally:
        os.close(descriptor)


def _ask_ahead(descriptor: int, start: int, end: int) -> None:
    """Lets the disk go on behind `end` while what is read is computed with: whoever reads pieces of a file reads the next ones too.

    Asked for at every multiple of AHEAD_BYTES that is read across: to ask takes 0.1 ms where all of it is there already.
    """
    if start // AHEAD_BYTES < end // AHEAD_BYTES and hasattr(os, "posix_fadvise"):
        first = start if end - start > AHEAD_BYTES else end // AHEAD_BYTES * AHEAD_BYTES
        os.posix_fadvise(descriptor, first, end - first + 2 * AHEAD_BYTES, os.POSIX_FADV_WILLNEED)


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one file, every bound checked before anything is allocated; BadCheckpoint says what is wrong."""
    if not path.is_file():
        raise BadCheckpoint(path, "no such file")
    file_bytes = path.stat().st_size
    if file_bytes < 8:
        raise BadCheckpoint(path, "is not a safetensors file: shorter than its header")
    length = int.from_bytes(read_exactly(path, 0, 8), "little")
    if length > min(MOST_HEADER_BYTES, file_bytes - 8):
        raise BadCheckpoint(path, f"is truncated or not a safetensors file: its header claims {length} bytes")
    try:
        header = json.loads(bytes(read_exactly(path, 8, length)), object_pairs_hook=partial(_object, path))
    except (ValueError, RecursionError):
        raise BadCheckpoint(path, "is corrupt: its header is not JSON") from None
    if not isinstance(header, dict):
        raise BadCheckpoint(path, "is corrupt: its header is not an object")
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, value, 8 + length, file_bytes) for name, value in header.items()}
    _check_apart(path, entries)
    return entries


def _object(path: Path, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which no key stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadCheckpoint(path, "is corrupt: its header names something twice")
    return found


def _check_apart(path: Path, entries: Mapping[str, Entry]) -> None:
    """Raises BadCheckpoint when two tensors share bytes."""
    placed = sorted((entry.offset, entry.offset + entry.nbytes, name) for name, entry in entries.items() if entry.nbytes)
    for (_, end, name), (begin, _, other) in pairwise(placed):
        if begin < end:
            raise BadCheckpoint(path, f"is corrupt: tensors {name!r} and {other!r} share bytes")


def is_name(word: object) -> bool:
    """Whether a word of a foreign file can be a name, and be shown to a person."""
    return isinstance(word, str) and word.isprintable() and 0 < len(word) <= MOST_NAME


def _entry(path: Path, name: str, value: Any, base: int, file_bytes: int) -> Entry:
    try:
        kind, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        well_formed = is_name(name) and is_name(kind) and len(shape) <= MOST_DIMENSIONS
        well_formed = well_formed and all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        well_formed = False
    if not well_formed:
        raise BadCheckpoint(path, f"is corrupt: the header of tensor {name[:MOST_NAME]!r} makes no sense")
    if kind not in ITEM_BYTES:
        raise BadCheckpoint(path, f"tensor {name!r} is stored as {kind}; supported: {', '.join(ITEM_BYTES)}")
    if end - begin != math.prod(shape) * ITEM_BYTES[kind]:
        raise BadCheckpoint(path, f"is corrupt: tensor {name!r} has {end - begin} bytes, its shape needs another number")
    if base + end > file_bytes:
        raise BadCheckpoint(path, f"is truncated: tensor {name!r} ends at byte {base + end}, the file at {file_bytes}")
    return Entry(path, base + begin, kind, shape)


def shard_paths(folder: Path, single: str, index: str) -> list[Path]:
    """The single file, or the files that the index names."""
    if (folder / single).is_file():
        return [folder / single]
    path = folder / index
    if not path.is_file():
        raise BadCheckpoint(folder, f"has neither {single} nor {index}")
    if path.stat().st_size > MOST_HEADER_BYTES:
        raise BadCheckpoint(path, f"is larger than {MOST_HEADER_BYTES} bytes: no index of shards")
    try:
        names = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadCheckpoint(path, "is not an index of shards") from None
    for name in names:
        if not is_name(name) or name != Path(name).name:
            raise BadCheckpoint(path, f"names a file outside its folder, or none: {str(name)[:MOST_NAME]!r}")
    return [folder / name for name in names]


def fingerprint(config_digest: str, entries: Mapping[str, Sampled]) -> str:
    """sha256 over config, tensor headers and sampled bytes of every tensor."""
    digest = hashlib.sha256(config_digest.encode())
    for name in sorted(entries):
        entry = entries[name]
        digest.update(f"{name} {entry.kind} {list(entry.shape)}".encode())
        digest.update(entry.sample())
    return digest.hexdigest()
