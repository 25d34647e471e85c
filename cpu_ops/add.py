"""`add` on the CPU."""

from torch import Tensor

from cpu_ops.describe import place
from cpu_ops.kernels.add import add as add_kernel
from cpu_ops.tape import fresh, run

FEW_TOKENS = 16


def add(a: Tensor, b: Tensor) -> Tensor:
    """float32 [T, H] + [T, H] or [H]."""
    if len(a) > FEW_TOKENS:
        return a + b
    out = fresh(*a.shape)
    run(add_kernel, *place(a), *place(b.expand_as(a)), *a.shape, out.data_ptr())
    return out
