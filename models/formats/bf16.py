"""bfloat16: the upper half of a float32, rounded to nearest even."""

import torch
from torch import Tensor

from models.formats.base import Format


class Bf16(Format):
    name = "bf16"
    plane_types = (torch.bfloat16,)

    def plane_widths(self, k: int) -> tuple[int, ...]:
        return (k,)

    def encode(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (rows.to(torch.bfloat16),)

    def decode(self, planes: tuple[Tensor, ...]) -> Tensor:
        return planes[0].float()


BF16 = Bf16()
