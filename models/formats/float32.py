"""float32: nothing is lost. For parity tests."""

import torch
from torch import Tensor

from models.formats.base import Format


class Float32(Format):
    name = "float32"
    plane_types = (torch.float32,)

    def plane_widths(self, k: int) -> tuple[int, ...]:
        return (k,)

    def encode(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (rows.float(),)

    def decode(self, planes: tuple[Tensor, ...]) -> Tensor:
        return planes[0].float()


FLOAT32 = Float32()
