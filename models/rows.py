"""Rows: a matrix whose rows can be sliced and gathered, whatever format they are stored in."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.bits import FormatName
from models.formats import FORMATS
from models.formats.base import Format


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Rows:
    """`n` rows of `k` weights. Dimension 0 of every plane is the row; planes may be strided along it, never within a row."""

    format: Format
    k: int
    planes: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        n = self.planes[0].shape[0]
        for plane, dtype, width in zip(self.planes, self.format.plane_types, self.format.plane_widths(self.k), strict=True):
            assert plane.dtype == dtype, (plane.dtype, dtype)
            assert plane.shape == (n, width), (plane.shape, n, width)
            assert n == 0 or width <= 1 or plane.stride(1) == 1, "a row must lie in one piece"

    @classmethod
    def encode(cls, name: FormatName, weights: Tensor) -> "Rows":
        """float32 [n, k] -> rows stored as `name`."""
        return cls(FORMATS[name], weights.shape[1], FORMATS[name].encode(weights))

    @classmethod
    def view(cls, name: FormatName, k: int, records: Tensor) -> "Rows":
        """Rows over uint8 records [n, row_bytes], which may be a strided slice of wider ones. Nothing is copied."""
        planes, offset = [], 0
        for dtype, width in zip(FORMATS[name].plane_types, FORMATS[name].plane_widths(k), strict=True):
            size = width * dtype.itemsize
            planes.append(records[:, offset : offset + size].view(dtype))
            offset += size
        assert offset == records.shape[1], (offset, records.shape)
        return cls(FORMATS[name], k, tuple(planes))

    def records(self) -> Tensor:
        """uint8 [n, row_bytes]: the planes of each row, one after the other. Always a copy."""
        return torch.cat([plane.contiguous().view(torch.uint8) for plane in self.planes], dim=1)

    @property
    def n(self) -> int:
        return self.planes[0].shape[0]

    @property
    def device(self) -> torch.device:
        return self.planes[0].device

    @property
    def nbytes(self) -> int:
        return self.n * self.format.row_bytes(self.k)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, which: slice | Tensor) -> "Rows":
        """A slice shares memory; an index tensor int64 [m] gathers a copy."""
        return Rows(self.format, self.k, tuple(plane[which] for plane in self.planes))

    def decode(self) -> Tensor:
        """float32 [n, k]."""
        return self.format.decode(self.planes)

    def to(self, device: torch.device | str) -> "Rows":
        return Rows(self.format, self.k, tuple(plane.to(device) for plane in self.planes))
