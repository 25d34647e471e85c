"""Many tokens at once, on the CPU: each row is read once for all of them. Knows neither few tokens nor which neurons are hot.

Quantised rows meet the input in integers (`product`); the others, and `down`, are decoded a tile at a time for a library's product.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cpu_ops.describe import Block, check_meets, input_places, rows_address
from cpu_ops.kernels.product import MEETING, PRODUCT
from cpu_ops.kernels.product import product as product_kernel
from cpu_ops.kernels.tile_code import compiled_tile, tile_codes
from cpu_ops.tiles import decode, tiles
from models.bank import NeuronBank
from models.bits import GROUP
from models.ffn import activate, combine
from models.formats import Input
from models.rows import Rows
from models.spec import FfnRule


def prompt_linear(rows: Rows, x: Input, bias: Tensor | None) -> Tensor:
    """rows [n, K], x [T, K], bias float32 [n] -> float32 [T, n]."""
    if rows.format.name in tile_codes():
        out = product(rows, x)
        return out if bias is None else out.add_(bias)
    values, out = x.decode(), torch.empty(len(x), len(rows))
    for tile in tiles(len(rows), rows.k):
        out[:, tile] = F.linear(values, decode(rows[tile]), None if bias is None else bias[tile])
    return out


def prompt_ffn(bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
    """What the neurons of `bank` add: x [T, H] -> float32 [T, H]."""
    out = torch.zeros(len(x), bank.hidden)
    for tile in tiles(len(bank), bank.hidden):
        part = bank[tile]
        gate = None if part.gate is None else prompt_linear(part.gate, x, part.gate_bias)
        out += combine(activate(gate, prompt_linear(part.up, x, part.up_bias), rule), decode(part.down))
    return out


def product(rows: Rows, x: Input) -> Tensor:
    """rows [n, K], x [T, K] -> float32 [T, n]. A token's bits depend neither on the other tokens nor on the threads."""
    check_meets(rows, x)
    out, excess = torch.empty(len(x), len(rows)), torch.empty(len(x), rows.k // GROUP, dtype=torch.int32)
    if out.numel() == 0:
        return out
    call = np.zeros(1, PRODUCT)
    call["meeting"], call["rows"], call["out"] = meeting(rows, x, excess), rows_address(rows), out.data_ptr()
    product_kernel(call.ctypes.data, excess.numpy())
    return out


def meeting(rows: Rows, x: Input, excess: Tensor) -> Block:
    """One MEETING record of an input with rows of one format."""
    (unpack, multiply, bias), _library = compiled_tile(rows.format.name)
    return np.array([(input_places(x), len(x), excess.data_ptr(), unpack, multiply, bias)], MEETING)
