"""Encoding by kernels: what packing is told to use where the CPU's are at hand. Not part of `Ops`: it belongs to no step."""

import torch
from torch import Tensor

from cpu_ops.describe import place
from cpu_ops.kernels.encode import encode as encode_kernel
from cpu_ops.kernels.turn import turn as turn_kernel
from cpu_ops.tape import run
from models.bits import BITS, GROUP, FormatName
from models.formats import FORMATS
from models.pack_files import encode_plainly

DIRECT = (torch.float32, torch.bfloat16)  # what the kernel reads as it is


def encode(name: FormatName, weights: Tensor) -> Tensor:
    """Rows [n, k] of any floating type, or columns in one piece -> uint8 records [n, row_bytes], bit for bit those of `encode_plainly`."""
    if not BITS[name].grouped or 0 in weights.shape:
        return encode_plainly(name, weights)
    rows = weights if weights.dtype in DIRECT else weights.float()
    rows = turned(rows) if rows.stride(0) == 1 else rows.contiguous()
    (n, k), quants_bytes = rows.shape, FORMATS[name].plane_widths(rows.shape[1])[0]
    records, steps = torch.empty(n, BITS[name].row_bytes(k), dtype=torch.uint8), torch.empty(n, k // GROUP)
    odd = torch.empty(1, dtype=torch.int64)
    kinds = int(rows.dtype == torch.bfloat16), int(name == "int4")
    run(encode_kernel, *place(rows), n, k // GROUP, *kinds, *place(records), steps.data_ptr(), odd.data_ptr())
    if odd.item():
        return encode_plainly(name, rows)
    records[:, quants_bytes:].view(torch.float16).copy_(steps)
    return records


def turned(columns: Tensor) -> Tensor:
    """A matrix [n, k] of 2 or 4 bytes an element whose columns lie in one piece, with rows in one piece."""
    n, k = columns.shape
    out, size = torch.empty(n, k, dtype=columns.dtype), columns.itemsize
    run(turn_kernel, columns.data_ptr(), columns.stride(1) * size, n, k, size, out.data_ptr())
    return out
