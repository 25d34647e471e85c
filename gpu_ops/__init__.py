"""The hot side: neurons on a torch device, in plain torch. Same table of contents as `cpu_ops` (see `models.ops.Ops`)."""

from torch import add

from gpu_ops.ffn import ffn
from gpu_ops.input import input
from gpu_ops.linear import linear
from models.layers import attend, embed, layer_norm, rotation, take
from models.layers import rms_norm as norm

__all__ = ["add", "attend", "embed", "ffn", "input", "layer_norm", "linear", "norm", "rotation", "take"]
