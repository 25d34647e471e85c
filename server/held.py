"""Held: what was loaded and where it lies, counted from the tensors themselves, to stand beside what was planned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass

import psutil
import torch
from torch import Tensor

from models.kv_cache import KvCache
from models.spine import Spine
from server.split_ffn import SplitBank


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes. `hot` [L·E]: neurons of each bank on the GPU. `device`: where the spine is."""

    device: str
    spine_bytes: int
    hot_bytes: int
    cold_bytes: int
    kv_bytes: int
    hot: tuple[int, ...]

    @classmethod
    def count(cls, spine: Spine, layers: Sequence[Sequence[SplitBank]], cache: KvCache, device: torch.device) -> "Held":
        banks = [bank for layer in layers for bank in layer]
        return cls(
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            spine_bytes=sum(size for _, size in {(one.data_ptr(), one.nbytes) for one in tensors(spine)}),
            hot_bytes=sum(bank.hot.nbytes for bank in banks),
            cold_bytes=sum(bank.cold.nbytes for bank in banks),
            kv_bytes=cache.nbytes,
            hot=tuple(len(bank.hot) for bank in banks),
        )


@dataclass(frozen=True, slots=True)
class MemoryNow:
    """Bytes that the process has at this moment. `vram` by torch's allocator and `vram_most` its peak; None without a GPU."""

    resident: int
    vram: int | None
    vram_most: int | None

    @classmethod
    def look(cls) -> "MemoryNow":
        resident = psutil.Process().memory_info().rss
        if not torch.cuda.is_initialized():
            return cls(resident, None, None)
        return cls(resident, torch.cuda.memory_allocated(), torch.cuda.max_memory_reserved())


def tensors(part: object) -> Iterator[Tensor]:
    """Every tensor inside `part`; shared ones (a tied head) as often as they are met."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, list | tuple):
        for one in part:
            yield from tensors(one)
    elif is_dataclass(part):
        for one in fields(part):
            yield from tensors(getattr(part, one.name))
