"""`norm` and `layer_norm` on the CPU."""

from torch import Tensor

from cpu_ops.describe import float_bits, place
from cpu_ops.kernels.norm import norm as norm_kernel
from cpu_ops.tape import fresh, run
from models.layers import layer_norm

__all__ = ["layer_norm", "norm"]  # the second in plain torch: a token's bits are its own there too


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x float32 [T, H] -> x / sqrt(mean(x²) + eps) · weight. Each token's bits are its own."""
    tokens, width = x.shape
    assert weight.is_contiguous()
    assert weight.shape[0] == width
    out = fresh(tokens, width)
    run(norm_kernel, *place(x), weight.data_ptr(), tokens, width, out.data_ptr(), float_bits(eps))
    return out
