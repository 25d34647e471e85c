"""What a GGUF file holds, without reading it: its metadata and where its tensors lie. Versions 2 and 3. Torch-free.

    magic "GGUF" (or PowerInfer's "PWRI") · u32 version · u64 tensors · u64 keys
    each key: string · u32 type · value          string: u64 length · UTF-8          array: u32 type · u64 count · items
    each tensor: string · u32 dimensions · u64 each, fastest first · u32 type · u64 offset
    padding to `general.alignment` · the tensors' bytes, each at a multiple of it

The file is hostile: every count and length is held against what is left of the file before anything is made of it, and an
array is only walked over; who wants its items reads them then. Knows no architectures.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import BinaryIO

from models.checkpoint.gguf_metadata import Metadata
from models.checkpoint.gguf_types import REFUSED, TYPES, BlockType
from models.checkpoint.gguf_values import Cursor, read_value
from models.checkpoint.headers import sampled
from models.errors import BadCheckpoint

MAGICS = (b"GGUF", b"PWRI")
VERSIONS = (2, 3)
MOST_KEYS = 1 << 16
MOST_TENSORS = 1 << 20
MOST_DIMENSIONS = 4
MOST_NAME = 512  # bytes; llama.cpp's own limits are 64 for a tensor and 65535 for a key
KEY_BYTES = 8 + 4 + 1  # the least a key, and a tensor, can take
TENSOR_BYTES = 8 + 4 + 8 + 4 + 8
MOST_ALIGNMENT = 1 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor: where its bytes are, and its shape with the slowest dimension first, as torch has it."""

    path: Path
    offset: int
    type: BlockType
    shape: tuple[int, ...]

    @property
    def kind(self) -> str:
        return self.type.name

    @property
    def row_bytes(self) -> int:
        return self.type.row_bytes(self.shape[-1])

    @property
    def rows(self) -> int:
        """Over all dimensions but the last."""
        return prod(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        return self.rows * self.row_bytes

    def sample(self) -> bytes:
        return sampled(self.path, self.offset, self.nbytes)


@dataclass(frozen=True, slots=True)
class GgufFile:
    """`magic` tells PowerInfer's files from llama.cpp's."""

    path: Path
    magic: bytes
    metadata: Metadata
    tensors: dict[str, Stored]


def read_gguf(path: Path) -> GgufFile:
    """The header of one file; BadCheckpoint says what is wrong with it."""
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except OSError as error:
        raise BadCheckpoint(path, f"cannot be read: {error.strerror}") from None


def is_gguf(path: Path) -> bool:
    """Whether a file begins as one of these does, or is named as one."""
    if path.suffix == ".gguf":
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) in MAGICS
    except OSError:
        return False


def _read(path: Path, file: BinaryIO) -> GgufFile:
    cursor = Cursor(path, file)
    magic = cursor.take(4) if cursor.left >= 4 else b""
    if magic not in MAGICS:
        raise BadCheckpoint(path, "is not a GGUF file")
    _check_version(path, cursor.u32())
    n_tensors, n_keys = cursor.u64(), cursor.u64()
    if n_keys > min(MOST_KEYS, cursor.left // KEY_BYTES) or n_tensors > min(MOST_TENSORS, cursor.left // TENSOR_BYTES):
        raise BadCheckpoint(path, f"is truncated or corrupt: it claims {n_tensors} tensors and {n_keys} keys")
    metadata = Metadata(path, _read_keys(cursor, n_keys))
    infos = [_read_info(cursor) for _ in range(n_tensors)]
    alignment = metadata.count("general.alignment", 32)
    if alignment & (alignment - 1) or alignment > MOST_ALIGNMENT:
        raise BadCheckpoint(path, f"is corrupt: general.alignment is {alignment}, which is no power of two up to {MOST_ALIGNMENT}")
    base = -(-cursor.at // alignment) * alignment
    tensors: dict[str, Stored] = {}
    for name, shape, number, offset in infos:
        if name in tensors:
            raise BadCheckpoint(path, f"is corrupt: it has tensor {name!r} twice")
        tensors[name] = _stored(path, name, shape, number, offset, alignment, base, cursor.size)
    check_apart(path, tensors)
    return GgufFile(path, magic, metadata, tensors)


def _check_version(path: Path, version: int) -> None:
    if version in VERSIONS:
        return
    if version and not version & 0xFFFF:
        raise BadCheckpoint(path, "is a big-endian GGUF file; only little-endian ones are supported")
    raise BadCheckpoint(path, f"is GGUF version {version}; supported: {', '.join(map(str, VERSIONS))}")


def _read_keys(cursor: Cursor, count: int) -> dict[str, object]:
    values: dict[str, object] = {}
    for _ in range(count):
        key = _read_name(cursor, "key")
        if key in values:
            raise BadCheckpoint(cursor.path, f"is corrupt: it has key {key!r} twice")
        values[key] = read_value(cursor, key)
    return values


def _read_name(cursor: Cursor, what: str) -> str:
    """A printable string of at most MOST_NAME bytes."""
    length = cursor.u64()
    if not 0 < length <= MOST_NAME:
        raise BadCheckpoint(cursor.path, f"is corrupt: a {what} has a name of {length} bytes")
    try:
        name = cursor.take(length).decode()
    except UnicodeDecodeError:
        raise BadCheckpoint(cursor.path, f"is corrupt: the name of a {what} is not UTF-8") from None
    if not name.isprintable():
        raise BadCheckpoint(cursor.path, f"is corrupt: the name {name!r} of a {what} cannot be printed")
    return name


def _read_info(cursor: Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape (slowest first), number of the type, offset."""
    name = _read_name(cursor, "tensor")
    dimensions = cursor.u32()
    if not 0 < dimensions <= MOST_DIMENSIONS:
        raise BadCheckpoint(cursor.path, f"is corrupt: tensor {name!r} has {dimensions} dimensions")
    shape = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions))[::-1]
    return name, shape, cursor.u32(), cursor.u64()


def _stored(path: Path, name: str, shape: tuple[int, ...], number: int, offset: int, alignment: int, base: int, file_bytes: int) -> Stored:
    if number not in TYPES:
        stored = REFUSED.get(number, f"type {number}")
        raise BadCheckpoint(path, f"tensor {name!r} is stored as {stored}; supported: {', '.join(kind.name for kind in TYPES.values())}")
    tensor = Stored(path, base + offset, TYPES[number], shape)
    if 0 in shape or shape[-1] % tensor.type.weights:
        raise BadCheckpoint(path, f"is corrupt: tensor {name!r} of shape {list(shape)} cannot be stored as {tensor.kind}")
    if offset % alignment:
        raise BadCheckpoint(path, f"is corrupt: tensor {name!r} begins at {offset}, which is no multiple of {alignment}")
    if tensor.offset + tensor.nbytes > file_bytes:
        end = tensor.offset + tensor.nbytes
        raise BadCheckpoint(path, f"is truncated or corrupt: tensor {name!r} ends at byte {end}, the file at {file_bytes}")
    return tensor


def check_apart(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Raises BadCheckpoint when two tensors share bytes."""
    placed = sorted((tensor.offset, tensor.offset + tensor.nbytes, name) for name, tensor in tensors.items())
    for (_, end, name), (begin, _, other) in pairwise(placed):
        if begin < end:
            raise BadCheckpoint(path, f"is corrupt: tensors {name!r} and {other!r} share bytes")


def read_ggufs(path: Path) -> GgufFile:
    """A file, or all shards of the model that it is one of, under the metadata of the first."""
    own = read_gguf(path)
    count = own.metadata.count("split.count", 1)
    if count == 1:
        return own
    first, *others = (own if shard == path else read_gguf(shard) for shard in shard_paths(path, count))
    tensors = dict(first.tensors)
    for number, shard in enumerate((first, *others)):
        if shard.metadata.natural("split.no") != number or shard.metadata.count("split.count") != count:
            raise BadCheckpoint(shard.path, f"does not say that it is part {number + 1} of {count}; the names of shards were mixed up")
        if shard is not first:
            _add(tensors, shard)
    if len(tensors) != (told := first.metadata.count("split.tensors.count", len(tensors))):
        raise BadCheckpoint(path, f"its {count} shards hold {len(tensors)} tensors, and should hold {told}")
    return GgufFile(first.path, first.magic, first.metadata, tensors)


def _add(tensors: dict[str, Stored], shard: GgufFile) -> None:
    if twice := tensors.keys() & shard.tensors.keys():
        raise BadCheckpoint(shard.path, f"tensor {min(twice)!r} is in another shard too")
    tensors |= shard.tensors


def shard_paths(path: Path, count: int) -> Iterable[Path]:
    """`name-00001-of-00003.gguf` and its neighbours; BadCheckpoint when the file is not named so."""
    name, _, rest = path.name.rpartition("-of-")
    if count > 99999 or rest != f"{count:05d}.gguf" or not name[-6:-5] == "-":
        raise BadCheckpoint(path, f"is one of {count} shards, and must be named as they are: …-00001-of-{count:05d}.gguf")
    return [path.with_name(f"{name[:-5]}{number:05d}-of-{rest}") for number in range(1, count + 1)]
