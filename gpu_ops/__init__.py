"""The hot side: neurons on a torch device, in plain torch. Same table of contents as `cpu_ops` (see `models.ops.Ops`)."""

from gpu_ops.ffn import ffn
from gpu_ops.linear import linear

__all__ = ["ffn", "linear"]
