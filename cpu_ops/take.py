"""`take` on the CPU."""

from torch import Tensor

from cpu_ops.describe import place
from cpu_ops.kernels.take import take as take_kernel
from cpu_ops.tape import fresh, run


def take(x: Tensor, which: Tensor) -> Tensor:
    """Rows of float32 [T, H] by index int64 [R], each in 0..T -> [R, H]."""
    assert which.is_contiguous()
    out = fresh(len(which), x.shape[1])
    run(take_kernel, *place(x), which.data_ptr(), *out.shape, out.data_ptr())
    return out
