"""The cold side: neurons in CPU memory, computed by Numba kernels. Same table of contents as `gpu_ops` (see `models.ops.Ops`)."""

from cpu_ops.ffn import ffn
from cpu_ops.linear import linear

__all__ = ["ffn", "linear"]
