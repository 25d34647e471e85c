"""What a format is: how a row of float32 becomes planes of bytes and back, and what it does to the vector it meets.

Knows no files and no kernels. A plane is a matrix whose dimension 0 is the row; a record is a row's planes, one after
the other, which is how rows lie on disk and in memory.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.bits import BITS, GROUP, FormatName

BLOCK_WEIGHTS = 1 << 17  # encoded at a time, so that a dozen passes over them find them in the second-level cache


@dataclass(frozen=True, slots=True)
class Input:
    """The vectors rows are multiplied with, after the format's activation arithmetic.

    Either float32 `values` [T, K] and no scales, or int8 `values` [T, K] with float32 `scales` [T, K/32].
    Made once per layer, before the split, so that both sides multiply the same numbers.
    """

    values: Tensor
    scales: Tensor | None = None

    def __len__(self) -> int:
        return self.values.shape[0]

    def decode(self) -> Tensor:
        """The float32 [T, K] that stands for the input: what a reference multiplies with."""
        if self.scales is None:
            return self.values
        grouped = self.values.unflatten(-1, (-1, GROUP)).float()
        decoded: Tensor = (grouped * self.scales.unsqueeze(-1)).flatten(-2)
        return decoded

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Input":
        scales = None if self.scales is None else self.scales.to(device, non_blocking=non_blocking)
        return Input(self.values.to(device, non_blocking=non_blocking), scales)


class Format(ABC):
    """Stateless; compared by identity. `encode` and `decode` take and give float32 on any device."""

    name: ClassVar[FormatName]
    plane_types: ClassVar[tuple[torch.dtype, ...]]

    @abstractmethod
    def plane_widths(self, k: int) -> tuple[int, ...]:
        """Elements of each plane in a row of `k` weights."""

    @abstractmethod
    def encode(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Rows [n, k] of any floating type -> planes, each [n, …]."""

    @abstractmethod
    def decode(self, planes: tuple[Tensor, ...]) -> Tensor:
        """Planes -> float32 [n, k]."""

    def empty_planes(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Planes for `rows` [n, k], on their device, to be filled."""
        widths = self.plane_widths(rows.shape[1])
        return tuple(rows.new_empty(len(rows), width, dtype=dtype) for width, dtype in zip(widths, self.plane_types, strict=True))

    def input(self, x: Tensor) -> Input:
        """float32 [T, K] -> what this format's rows are multiplied with."""
        return Input(x)

    def row_bytes(self, k: int) -> int:
        return BITS[self.name].row_bytes(k)

    def takes_width(self, k: int) -> bool:
        """Whether rows of `k` weights can be stored."""
        return not BITS[self.name].grouped or k % GROUP == 0


def row_blocks(rows: Tensor) -> Iterator[slice]:
    """Slices of `rows` [n, k] of about BLOCK_WEIGHTS weights."""
    step = block_rows(rows)
    return (slice(first, first + step) for first in range(0, len(rows), step))


def block_rows(rows: Tensor) -> int:
    return max(1, BLOCK_WEIGHTS // max(1, rows.shape[1]))


class Workspace:
    """Memory that the blocks of one `encode` share: fresh memory for each would be paged in again and again, half of the time."""

    def __init__(self, rows: Tensor) -> None:
        size = min(len(rows), block_rows(rows)) * rows.shape[1]
        self._floats, self._doubles, self._words = (
            rows.new_empty(size, dtype=kind) for kind in (torch.float32, torch.float64, torch.int16)
        )
        self._halves = rows.new_empty(size // 2, dtype=torch.int16)

    def floats(self, block: Tensor) -> Tensor:
        """float32 copy of a block."""
        return self._floats[: block.numel()].view(block.shape).copy_(block)

    def doubles(self, block: Tensor) -> Tensor:
        """float64 copy of a block."""
        return self._doubles[: block.numel()].view(block.shape).copy_(block)

    def words(self, block: Tensor) -> Tensor:
        """int16 copy of a block, rounded towards zero: four times as fast as straight to bytes."""
        return self._words[: block.numel()].view(block.shape).copy_(block)

    def half_words(self, grouped: Tensor) -> Tensor:
        """int16 [n, k/32, 16], not filled, for `grouped` [n, k/32, 32]."""
        return self._halves[: grouped.numel() // 2].view(*grouped.shape[:-1], -1)


def quantise_input(x: Tensor) -> Input:
    """int8 per group of 32, as GGML's Q8_0 does it but with a float32 scale: d = max|x| / 127, q = round(x · 127/max|x|).

    Rounds half to even. A group with a NaN or an infinity gets a NaN scale, so that it cannot pass unseen.
    """
    grouped = x.unflatten(-1, (-1, GROUP))
    most = grouped.abs().amax(-1)  # [T, K/32]
    inverse = torch.where(most > 0, 127.0 / most, 0.0)
    quants = (grouped * inverse.unsqueeze(-1)).round().nan_to_num(0.0, 0.0, 0.0)
    scales = torch.where(most.isfinite(), most / 127.0, torch.nan)
    return Input(quants.to(torch.int8).flatten(-2), scales)
