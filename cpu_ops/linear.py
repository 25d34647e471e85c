"""`linear` on the CPU: a kernel for few tokens; many are a prompt."""

import torch
from torch import Tensor

from cpu_ops.describe import CODES, check_meets, input_places, rows_address, run
from cpu_ops.kernels.linear import linear as linear_kernel
from cpu_ops.prompt import prompt_linear
from models.formats import Input
from models.rows import Rows

FEW_TOKENS = 16  # up to here the kernels win


def linear(rows: Rows, x: Input, bias: Tensor | None = None) -> Tensor:
    """rows [n, K], x [T, K], bias float32 [n] -> float32 [T, n]. Up to FEW_TOKENS tokens each one's bits are its own."""
    if len(x) > FEW_TOKENS or rows.format.name not in CODES:
        return prompt_linear(rows, x, bias)
    check_meets(rows, x)
    out = torch.empty(len(x), len(rows))
    run(linear_kernel, rows_address(rows), *input_places(x), len(x), out.data_ptr())
    return out if bias is None else out.add_(bias)
