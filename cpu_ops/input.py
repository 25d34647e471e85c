"""`input` on the CPU: the formats' activation arithmetic by a kernel, to the bits of `Format.input`."""

import torch
from torch import Tensor

from cpu_ops.describe import place
from cpu_ops.kernels.quantise import quantise
from cpu_ops.tape import fresh, run
from models.bits import BITS, GROUP
from models.formats import Format, Input


def input(format: Format, x: Tensor) -> Input:
    """float32 [T, K] -> what rows of `format` are multiplied with."""
    if not BITS[format.name].grouped:
        return format.input(x)
    tokens, width = x.shape
    assert width % GROUP == 0, width
    assert x.dtype == torch.float32, x.dtype
    values, scales = fresh(tokens, width, dtype=torch.int8), fresh(tokens, width // GROUP)
    run(quantise, *place(x), tokens, width // GROUP, values.data_ptr(), scales.data_ptr())
    return Input(values, scales)
