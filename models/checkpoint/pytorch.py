"""Tensors out of `pytorch_model*.bin`, mapped into memory. What such a file holds was found out before, by `archive.py`."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint.archive import read_table
from models.checkpoint.base import Checkpoint, open_checkpoint
from models.checkpoint.headers import Entry, fingerprint
from models.checkpoint.weights import read_pytorch_headers
from models.errors import BadCheckpoint

MOST_SAID = 200  # characters of an error that is not ours


@dataclass(frozen=True, slots=True)
class PytorchSource:
    """Satisfies `Source`. `tensors` are views of mapped files."""

    entries: dict[str, Entry]
    tensors: dict[str, Tensor]

    def names(self) -> list[str]:
        return list(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.entries[name].shape

    def fingerprint(self, config_digest: str) -> str:
        return fingerprint(config_digest, self.entries)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        return self.tensors[name][start:stop]


def map_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, by name, in memory that is the file; BadCheckpoint when torch disagrees with `read_table`."""
    expected = read_table(path)
    try:
        found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # bare RuntimeError, UnpicklingError, and what they wrap
        said = "".join(letter for letter in " ".join(str(error).split()) if letter.isprintable())
        raise BadCheckpoint(path, f"is damaged: PyTorch says {said[:MOST_SAID]}") from None
    if {name: tuple(tensor.shape) for name, tensor in found.items()} != {name: entry.shape for name, entry in expected.items()}:
        raise BadCheckpoint(path, "is damaged: PyTorch reads it otherwise")
    return {name: tensor.detach() for name, tensor in found.items()}


def open_pytorch(folder: Path) -> Checkpoint:
    """An older Hugging Face folder: config.json and `pytorch_model.bin`, or its shards and their index."""
    entries = read_pytorch_headers(folder)
    tensors: dict[str, Tensor] = {}
    for path in sorted({entry.path for entry in entries.values()}):
        tensors |= map_tensors(path)
    return open_checkpoint(folder, PytorchSource(entries, tensors))
