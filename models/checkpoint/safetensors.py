"""Tensors out of safetensors files, one or sharded, read when they are asked for."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.arena import allocate
from models.checkpoint.base import Checkpoint, open_checkpoint
from models.checkpoint.headers import Entry, fingerprint, read_to
from models.checkpoint.weights import read_safetensors_headers
from models.errors import BadCheckpoint

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class SafetensorsSource:
    """Satisfies `Source`."""

    entries: dict[str, Entry]

    def names(self) -> list[str]:
        return list(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.entries[name].shape

    def fingerprint(self, config_digest: str) -> str:
        return fingerprint(config_digest, self.entries)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        entry = self.entries[name]
        row_shape = entry.shape[1:]
        rows = range(*slice(start, stop).indices(entry.shape[0]))
        row_bytes = math.prod(row_shape) * TYPES[entry.kind].itemsize
        data = allocate(len(rows) * row_bytes)
        read_to(entry.path, entry.offset + rows.start * row_bytes, data.numpy().data)
        return data.view(TYPES[entry.kind]).view(len(rows), *row_shape)


def open_safetensors(folder: Path) -> Checkpoint:
    """A Hugging Face folder: config.json and safetensors. Reads headers only."""
    if not folder.is_dir():
        raise BadCheckpoint(folder, "no such directory")
    entries = read_safetensors_headers(folder) if (folder / "config.json").is_file() else {}
    return open_checkpoint(folder, SafetensorsSource(entries))
