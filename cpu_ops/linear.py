"""`linear` on the CPU: a kernel for few tokens, a library's matrix product over decoded tiles for many."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cpu_ops.describe import CODES, check_meets, input_places, rows_address
from cpu_ops.kernels.linear import linear as linear_kernel
from cpu_ops.tiles import decode, tiles
from models.formats import Input
from models.rows import Rows

FEW_TOKENS = 16  # up to here the kernels win


def linear(rows: Rows, x: Input, bias: Tensor | None = None) -> Tensor:
    """rows [n, K], x [T, K], bias float32 [n] -> float32 [T, n]. Up to FEW_TOKENS tokens each one's bits are its own."""
    out = torch.empty(len(x), len(rows))
    if len(x) > FEW_TOKENS or rows.format.name not in CODES:
        return _by_tiles(rows, x, bias, out)
    check_meets(rows, x)
    linear_kernel(rows_address(rows), *input_places(x), len(x), out.data_ptr())
    return out if bias is None else out.add_(bias)


def _by_tiles(rows: Rows, x: Input, bias: Tensor | None, out: Tensor) -> Tensor:
    values = x.decode()
    for tile in tiles(len(rows), rows.k):
        out[:, tile] = F.linear(values, decode(rows[tile]), None if bias is None else bias[tile])
    return out
