"""Arena: one piece of CPU memory for all cold rows of a model, handed out from the front, so that it can be aligned and paged as one."""

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from models.layout import ALIGNMENT, BankRegions, aligned
from models.manifest import Manifest


class Arena:
    """`nbytes` of memory that begins at a multiple of ALIGNMENT, as does every piece of it."""

    def __init__(self, nbytes: int) -> None:
        whole = torch.empty(nbytes + ALIGNMENT, dtype=torch.uint8)
        first = -whole.data_ptr() % ALIGNMENT
        self._room = whole[first : first + nbytes]
        self._used = 0

    def take(self, count: int) -> Tensor:
        """uint8 [count]; an `Allocate` for `PackedModel.load_banks`."""
        start = aligned(self._used)
        assert start + count <= len(self._room), (start, count, len(self._room))
        self._used = start + count
        return self._room[start : start + count]


def arena_for(manifest: Manifest, hot: Sequence[int]) -> Arena:
    """Room for the cold neurons that `hot` [L·E] leaves, with up to ALIGNMENT bytes lost before each region of a bank."""
    cold = manifest.spec.n_banks * manifest.spec.n_neurons - sum(hot)
    return Arena(cold * manifest.sizes.neuron + manifest.spec.n_banks * len(fields(BankRegions)) * ALIGNMENT)
