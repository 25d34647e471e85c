"""Makers of GGUF files: headers byte by byte, to be wrong in any way, and whole models by the gguf package's writer."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

U32, F32, BOOL, STRING, ARRAY, U64 = 4, 6, 7, 8, 9, 10


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def u32_key(name: str, value: int) -> bytes:
    return string(name) + struct.pack("<II", U32, value)


def text_key(name: str, value: str | bytes) -> bytes:
    return string(name) + struct.pack("<I", STRING) + string(value)


def strings_key(name: str, values: Sequence[str]) -> bytes:
    return string(name) + struct.pack("<IIQ", ARRAY, STRING, len(values)) + b"".join(map(string, values))


def tensor_info(name: str, dimensions: Sequence[int], kind: int = 0, offset: int = 0) -> bytes:
    """Dimensions fastest first, as they stand in the file."""
    return string(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)


@dataclass
class Raw:
    """A file as it is written, each part of which a test may put wrong."""

    keys: Sequence[bytes] = ()
    tensors: Sequence[bytes] = ()
    data: bytes = b""
    magic: bytes = b"GGUF"
    version: int = 3
    n_keys: int | None = None
    n_tensors: int | None = None
    alignment: int = field(default=32)

    def write(self, path: Path) -> Path:
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_keys = len(self.keys) if self.n_keys is None else self.n_keys
        header = self.magic + struct.pack("<IQQ", self.version, n_tensors, n_keys) + b"".join([*self.keys, *self.tensors])
        path.write_bytes(header + bytes(-len(header) % self.alignment) + self.data)
        return path
