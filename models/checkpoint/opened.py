"""Foreign files, opened as what they are."""

from pathlib import Path

from models.checkpoint.base import Checkpoint
from models.checkpoint.gguf_source import open_gguf
from models.checkpoint.pytorch import open_pytorch
from models.checkpoint.safetensors import open_safetensors
from models.checkpoint.weights import is_pytorch


def open_foreign(path: Path) -> Checkpoint:
    """A GGUF file, or a folder of config.json with safetensors or with PyTorch's older files. Reads headers only."""
    if path.is_file():
        return open_gguf(path)
    return open_pytorch(path) if is_pytorch(path) else open_safetensors(path)
