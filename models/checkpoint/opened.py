"""A folder of foreign files, opened as what it is."""

from pathlib import Path

from models.checkpoint.base import Checkpoint
from models.checkpoint.pytorch import open_pytorch
from models.checkpoint.safetensors import open_safetensors
from models.checkpoint.weights import is_pytorch


def open_folder(folder: Path) -> Checkpoint:
    """config.json with safetensors, or with PyTorch's older files. Reads headers only."""
    return open_pytorch(folder) if is_pytorch(folder) else open_safetensors(folder)
