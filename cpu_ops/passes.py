"""The two things done with stored rows, over a list of them: what tests hold against decoded weights and benchmarks time."""

import torch
from torch import Tensor

from cpu_ops.describe import check_meets, indices_at, input_places, known
from cpu_ops.kernels.passes import PARTS, PRODUCTS, SUM
from cpu_ops.kernels.passes import passes as passes_kernel
from cpu_ops.linear import room_for
from cpu_ops.tape import run
from models.formats import Input
from models.rows import Rows


def multiply(rows: Rows, x: Input, which: Tensor) -> Tensor:
    """The products of rows which int64 [m] with the one token of `x` -> float32 [m]."""
    check_meets(rows, x)
    matrix, places, out = known(rows), input_places(x), torch.empty(len(which))
    prepared, _ = room_for(matrix.prepared_bytes, places, 1)
    run(passes_kernel, matrix.address, *places, prepared, PRODUCTS, indices_at(which), len(which), 0, out.data_ptr())
    return out


def add_up(rows: Rows, which: Tensor) -> Tensor:
    """The sum of rows which int64 [m] -> float32 [k]."""
    matrix, out = known(rows), torch.empty(rows.k)
    sums = torch.zeros(PARTS, int(matrix.block["raw_floats"][0]))
    run(passes_kernel, matrix.address, *[0] * 5, SUM, indices_at(which), len(which), sums.data_ptr(), out.data_ptr())
    return out
