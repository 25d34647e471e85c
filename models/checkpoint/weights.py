"""Which files of a folder hold its weights, and what their headers say: safetensors, else PyTorch's. Torch-free."""

from collections.abc import Callable
from pathlib import Path

from models.checkpoint.archive import read_table
from models.checkpoint.headers import Entry, read_header, shard_paths
from models.errors import BadCheckpoint

SAFETENSORS = "model.safetensors", "model.safetensors.index.json"
PYTORCH = "pytorch_model.bin", "pytorch_model.bin.index.json"


def has_weights(folder: Path) -> bool:
    return has_any(folder, SAFETENSORS) or has_any(folder, PYTORCH)


def has_any(folder: Path, names: tuple[str, str]) -> bool:
    return any((folder / name).is_file() for name in names)


def is_pytorch(folder: Path) -> bool:
    """Whether PyTorch's files are all there is; a folder that has both kinds is read as safetensors."""
    return has_any(folder, PYTORCH) and not has_any(folder, SAFETENSORS)


def read_headers(folder: Path) -> dict[str, Entry]:
    """Every tensor of a folder, over all its shards, whichever kind they are."""
    return read_pytorch_headers(folder) if is_pytorch(folder) else read_safetensors_headers(folder)


def read_safetensors_headers(folder: Path) -> dict[str, Entry]:
    return _joined(shard_paths(folder, *SAFETENSORS), read_header)


def read_pytorch_headers(folder: Path) -> dict[str, Entry]:
    return _joined(shard_paths(folder, *PYTORCH), read_table)


def _joined(paths: list[Path], read: Callable[[Path], dict[str, Entry]]) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for path in paths:
        found = read(path)
        if twice := entries.keys() & found.keys():
            raise BadCheckpoint(path, f"tensor {min(twice)!r} is in another shard too")
        entries |= found
    return entries
