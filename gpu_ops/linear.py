"""`linear` on a torch device: decode a tile, multiply."""

import torch
from torch import Tensor

from gpu_ops.tiles import exact_products, tiles
from models.ffn import dense_linear
from models.formats import Input
from models.rows import Rows


def linear(rows: Rows, x: Input, bias: Tensor | None = None) -> Tensor:
    """rows [n, K], x [T, K], bias float32 [n] -> float32 [T, n] on the device of the rows."""
    out = torch.empty(len(x), len(rows), device=rows.device)
    values = Input(x.decode())
    with exact_products():
        for tile in tiles(len(rows), rows.k):
            out[:, tile] = dense_linear(rows[tile], values, None if bias is None else bias[tile])
    return out
