"""int4 in groups of 32 with a float16 scale: the values of GGUF's Q4_0, (q − 8)·d, its nibbles in the same places."""

import torch
from torch import Tensor

from models.bits import GROUP
from models.formats.base import Format, Input, quantise_input

_HALF = GROUP // 2


class Int4(Format):
    """Planes: nibbles uint8 [n, k/2], scales float16 [n, k/32]. Byte j of a group holds weight j (low) and j + 16 (high)."""

    name = "int4"
    plane_types = (torch.uint8, torch.float16)

    def plane_widths(self, k: int) -> tuple[int, ...]:
        return k // 2, k // GROUP

    def encode(self, rows: Tensor) -> tuple[Tensor, ...]:
        grouped = rows.float().unflatten(-1, (-1, GROUP))
        extreme = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True))  # the weight of greatest magnitude, signed
        scales = extreme / -8.0
        inverse = torch.where(scales != 0, 1.0 / scales, 0.0)
        quants = (grouped.double() * inverse.double() + 8.5).trunc().clamp(0, 15).to(torch.uint8)
        packed = quants[..., :_HALF] | (quants[..., _HALF:] << 4)
        return packed.flatten(-2), scales.squeeze(-1).to(torch.float16)

    def decode(self, planes: tuple[Tensor, ...]) -> Tensor:
        packed, scales = planes
        packed = packed.unflatten(-1, (-1, _HALF))
        quants = torch.cat((packed & 0x0F, packed >> 4), dim=-1).float() - 8.0
        return (quants * scales.float().unsqueeze(-1)).flatten(-2)

    def input(self, x: Tensor) -> Input:
        return quantise_input(x)


INT4 = Int4()
