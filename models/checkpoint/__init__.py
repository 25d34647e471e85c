"""Where tensors come from: a folder of foreign files, read lazily, under canonical names."""

from models.checkpoint.base import Checkpoint, Source
from models.checkpoint.safetensors import open_safetensors

__all__ = ["Checkpoint", "Source", "open_safetensors"]
