"""The rectifier between a predictor's two matrices."""

from torch import Tensor

from cpu_ops.kernels.relu import relu as relu_kernel
from cpu_ops.tape import run


def relu(x: Tensor) -> Tensor:
    """x, written over: 0 where it was below. float32 of any shape, in one piece."""
    assert x.is_contiguous()
    run(relu_kernel, x.data_ptr(), x.numel())
    return x
