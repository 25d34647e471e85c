"""Memory that a call needs only while it lasts: fresh memory would be paged in on every call."""

import threading

import torch
from torch import Tensor

from cpu_ops.tape import keep

_KEPT = threading.local()


def scratch(floats: int) -> Tensor:
    """float32 [floats], the calling thread's own, the same memory each time: whoever asks next writes over it."""
    room: Tensor | None = getattr(_KEPT, "room", None)
    if room is None or len(room) < floats:
        with torch.inference_mode(mode=False):  # else whoever asks first inside it would leave memory that nobody outside may write
            room = _KEPT.room = torch.empty(floats)
    keep(room)
    return room[:floats]
