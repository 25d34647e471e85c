"""The cold side: neurons in CPU memory, computed by Numba kernels. Same table of contents as `gpu_ops` (see `models.ops.Ops`)."""

from cpu_ops.add import add
from cpu_ops.attend import attend
from cpu_ops.embed import embed
from cpu_ops.ffn import ffn, predicted_ffn
from cpu_ops.input import input
from cpu_ops.linear import linear
from cpu_ops.norm import layer_norm, norm
from cpu_ops.replay import replayed
from cpu_ops.rotation import rotation
from cpu_ops.take import take
from cpu_ops.warm import warm_up

__all__ = [
    "add",
    "attend",
    "embed",
    "ffn",
    "input",
    "layer_norm",
    "linear",
    "norm",
    "predicted_ffn",
    "replayed",
    "rotation",
    "take",
    "warm_up",
]
