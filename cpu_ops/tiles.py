"""Rows as float32, a bounded tile at a time, for products that a library does better."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cpu_ops.describe import CODES, rows_address
from cpu_ops.kernels.decode import decode as decode_kernel
from cpu_ops.kernels.widen import compiled_widen
from cpu_ops.tape import run
from models.rows import Rows

TILE_WEIGHTS = 2**20  # 4 MiB of float32: stays in the last-level cache between decoding and multiplying


def tiles(n: int, k: int) -> Iterator[slice]:
    """Slices that cover n rows of k weights."""
    rows = max(1, TILE_WEIGHTS // max(1, k))
    return (slice(first, min(first + rows, n)) for first in range(0, n, rows))


def decode(rows: Rows) -> Tensor:
    """float32 [n, k]: the format's own `decode`, on every thread where there is a kernel for it."""
    if rows.format.name not in CODES:
        return rows.decode()
    out = torch.empty(len(rows), rows.k)
    run(decode_kernel, rows_address(rows), compiled_widen(rows.format.name)[0], out.data_ptr())
    return out
