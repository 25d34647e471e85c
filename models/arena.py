"""Arena: one piece of CPU memory for all that a model keeps there, handed out from the front, so that it is aligned and paged as one."""

import mmap
from collections.abc import Sequence
from dataclasses import fields
from threading import Lock

import torch
from torch import Tensor

from models.layout import ALIGNMENT, BankRegions, aligned
from models.manifest import Manifest

HUGE_BYTES = 1 << 21  # a large page of x86 and of most Arm systems


def allocate(count: int) -> Tensor:
    """uint8 [count] in CPU memory, in huge pages when it is large and the system has them.

    Huge pages are first touched at 10 GB/s instead of 1.5 (two threads), and gathering rows at random gains a fifth.
    """
    if count < HUGE_BYTES:
        return torch.empty(count, dtype=torch.uint8)
    pages = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory, the default, gets small pages
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)


class Arena:
    """`nbytes` of memory that begins at a multiple of ALIGNMENT, as does every piece of it."""

    def __init__(self, nbytes: int) -> None:
        whole = allocate(nbytes + ALIGNMENT)
        first = -whole.data_ptr() % ALIGNMENT
        self._room = whole[first : first + nbytes]
        self._used = 0
        self._lock = Lock()

    def take(self, count: int) -> Tensor:
        """uint8 [count]; an `Allocate` for `PackedModel`, whose threads may come at once."""
        with self._lock:
            start = aligned(self._used)
            assert start + count <= len(self._room), (start, count, len(self._room))
            self._used = start + count
        return self._room[start : start + count]


def neurons_room(manifest: Manifest, hot: Sequence[int]) -> int:
    """Bytes of the cold neurons that `hot` [L·E] leaves, with up to ALIGNMENT bytes lost before each region of a bank."""
    cold = manifest.spec.n_banks * manifest.spec.n_neurons - sum(hot)
    return cold * manifest.sizes.neuron + manifest.spec.n_banks * len(fields(BankRegions)) * ALIGNMENT


def spine_room(manifest: Manifest) -> int:
    """Bytes of everything else, with up to ALIGNMENT bytes lost before each tensor."""
    return manifest.spine_bytes + len(manifest.spine) * ALIGNMENT
