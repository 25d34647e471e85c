"""KvCache: keys and values of every slot, for every layer. Holds memory; who gets a slot is the scheduler's business."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from models.arena import HUGE_BYTES, Arena
from models.layout import ALIGNMENT
from models.packed import Allocate
from models.spec import ModelSpec


class KvCache:
    """`keys`, `values`: [L][slots, kv heads, context, head dim], so that a head's keys lie in one piece."""

    def __init__(
        self,
        spec: ModelSpec,
        *,
        slots: int,
        context: int,
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device | str = "cpu",
        allocate: Allocate | None = None,
    ) -> None:
        """`allocate` says where the memory is to be, on `device`; what is in it does not matter. If none does: zeros, in huge pages."""
        shape = (slots, spec.n_kv_heads, context, spec.head_dim)
        piece_bytes = math.prod(shape) * dtype.itemsize
        take = allocate or _zeros(2 * spec.n_layers, piece_bytes, torch.device(device))
        self.spec, self.slots, self.context = spec, slots, context
        self.keys: Sequence[Tensor]
        self.values: Sequence[Tensor]
        self.keys, self.values = ([take(piece_bytes).view(dtype).view(shape) for _ in range(spec.n_layers)] for _ in range(2))

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (*self.keys, *self.values))

    @property
    def bytes_per_token(self) -> int:
        return self.nbytes // (self.slots * self.context)

    def write(self, layer: int, slot: int, start: int, keys: Tensor, values: Tensor) -> None:
        """keys, values [t, kv heads, head dim] of positions start, start + 1, …"""
        end = start + keys.shape[0]
        self.keys[layer][slot, :, start:end] = keys.transpose(0, 1)
        self.values[layer][slot, :, start:end] = values.transpose(0, 1)

    def read(self, layer: int, slot: int, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of positions start..end, float32 [kv heads, end - start, head dim]."""
        return self.keys[layer][slot, :, start:end].float(), self.values[layer][slot, :, start:end].float()

    def copy(self, source: int, slot: int, count: int) -> None:
        """Gives `slot` the first `count` positions of slot `source`."""
        for part in (*self.keys, *self.values):
            part[slot, :, :count] = part[source, :, :count]

    def save(self, slot: int, count: int) -> Tensor:
        """The first `count` positions of a slot, in CPU memory: [2·L, kv heads, count, head dim]."""
        parts = (*self.keys, *self.values)
        saved = torch.empty(len(parts), self.spec.n_kv_heads, count, self.spec.head_dim, dtype=parts[0].dtype)
        for room, part in zip(saved, parts, strict=True):
            room.copy_(part[slot, :, :count])
        return saved

    def restore(self, saved: Tensor, slot: int, count: int) -> None:
        """Gives `slot` the first `count` positions of what `save` gave."""
        for room, part in zip(saved, (*self.keys, *self.values), strict=True):
            part[slot, :, :count] = room[:, :count]


def _zeros(pieces: int, piece_bytes: int, device: torch.device) -> Allocate:
    """A head's keys are far from the next one's: in small pages each would cost an address looked up in memory."""
    if device.type == "cpu" and pieces * piece_bytes >= HUGE_BYTES:
        return Arena(pieces * (piece_bytes + ALIGNMENT)).take
    return partial(torch.zeros, dtype=torch.uint8, device=device)
