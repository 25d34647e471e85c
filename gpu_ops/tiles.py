"""Bounded tiles of rows, and float32 products on any torch device that are float32 to the last bit. Knows no neurons."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

TILE_WEIGHTS = 2**25  # 128 MiB of float32, the largest workspace a call takes per matrix


def tiles(n: int, k: int) -> Iterator[slice]:
    """Slices that cover n rows of k weights."""
    rows = max(1, TILE_WEIGHTS // max(1, k))
    return (slice(first, min(first + rows, n)) for first in range(0, n, rows))


@contextmanager
def exact_products() -> Iterator[None]:
    """TF32 keeps ten bits of a weight: off while the split has to equal dense."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
