"""`input` on a torch device: the format's own."""

from torch import Tensor

from models.formats import Format, Input


def input(format: Format, x: Tensor) -> Input:
    """float32 [T, K] -> what rows of `format` are multiplied with."""
    return format.input(x)
