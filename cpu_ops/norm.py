"""`norm` and `layer_norm` on the CPU. Each token's bits are its own."""

from torch import Tensor

from cpu_ops.describe import float_bits, place
from cpu_ops.kernels.norm import layer_norm as layer_norm_kernel
from cpu_ops.kernels.norm import norm as norm_kernel
from cpu_ops.tape import Kernel, fresh, run


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x float32 [T, H] -> x / sqrt(mean(x²) + eps) · weight."""
    return _normed(norm_kernel, x, weight, None, eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """x float32 [T, H] -> (x - mean(x)) / sqrt(variance(x) + eps) · weight + bias."""
    return _normed(layer_norm_kernel, x, weight, bias, eps)


def _normed(kernel: Kernel, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    tokens, width = x.shape
    for vector in (weight, bias):
        assert vector is None or (vector.is_contiguous() and vector.shape == (width,)), (vector.shape, width)
    out = fresh(tokens, width)
    bias_at = 0 if bias is None else bias.data_ptr()
    run(kernel, *place(x), weight.data_ptr(), bias_at, tokens, width, out.data_ptr(), float_bits(eps))
    return out
