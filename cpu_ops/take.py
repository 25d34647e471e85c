"""`take` on the CPU."""

from torch import Tensor

from cpu_ops.describe import indices_at, place
from cpu_ops.kernels.take import take as take_kernel
from cpu_ops.tape import fresh, run


def take(x: Tensor, which: Tensor) -> Tensor:
    """Rows of float32 [T, H] by index int64 [R], each in 0..T -> [R, H]."""
    out = fresh(len(which), x.shape[1])
    run(take_kernel, *place(x), indices_at(which), *out.shape, out.data_ptr())
    return out
