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
    """Bytes. `hot` [L·E]: neurons of each bank on the GPU. `device`: where the spine is; masks on it are not of the CPU's predictors."""

    device: str
    spine_bytes: int
    hot_bytes: int
    cold_bytes: int
    kv_bytes: int
    hot: tuple[int, ...]
    predictor_bytes: int = 0  # in CPU memory
    mask_bytes: int = 0  # on the GPU: predictors that are part of the model

    @classmethod
    def count(cls, spine: Spine, layers: Sequence[Sequence[SplitBank]], cache: KvCache, device: torch.device) -> "Held":
        banks = [bank for layer in layers for bank in layer]
        return cls(
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            spine_bytes=distinct_bytes(spine),
            hot_bytes=sum(bank.hot.nbytes for bank in banks),
            cold_bytes=sum(bank.cold.nbytes for bank in banks),
            kv_bytes=cache.nbytes,
            hot=tuple(len(bank.hot) for bank in banks),
            predictor_bytes=distinct_bytes([(bank.predictor, bank.cold.mask) for bank in banks]),
            mask_bytes=distinct_bytes([bank.hot.mask for bank in banks if len(bank.hot)]),
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


def distinct_bytes(part: object) -> int:
    """Of every tensor inside `part`, one that is met twice counted once."""
    return sum(size for _, size in {(one.data_ptr(), one.nbytes) for one in tensors(part)})


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
