"""int4 in groups of 32 with a float16 scale: the values of GGUF's Q4_0, (q − 8)·d, its nibbles in the same places."""

import math

import torch
from torch import Tensor

from models.bits import GROUP
from models.formats.base import Format, Input, Workspace, quantise_input, row_blocks

_HALF = GROUP // 2


class Int4(Format):
    """Planes: nibbles uint8 [n, k/2], scales float16 [n, k/32]. Byte j of a group holds weight j (low) and j + 16 (high)."""

    name = "int4"
    plane_types = (torch.uint8, torch.float16)

    def plane_widths(self, k: int) -> tuple[int, ...]:
        return k // 2, k // GROUP

    def encode(self, rows: Tensor) -> tuple[Tensor, ...]:
        packed, scales = self.empty_planes(rows)
        room = Workspace(rows)
        for block in row_blocks(rows):
            grouped = room.floats(rows[block]).unflatten(-1, (-1, GROUP))
            steps = _extremes(grouped) / -8.0
            scales[block] = steps
            inverse = torch.where(steps != 0, 1.0 / steps, 0.0)
            exact = room.doubles(grouped).mul_(inverse.double().unsqueeze(-1)).add_(8.5)  # as the gguf package does
            if (inverse.abs() == math.inf).any():  # of weights next to nothing; else 0.5 to 16.5, and cutting off whole numbers is cheaper
                exact.clamp_(0, 15)
            quants = room.words(exact).clamp_(max=15)
            packed[block] = torch.add(quants[..., :_HALF], quants[..., _HALF:], alpha=16, out=room.half_words(quants)).flatten(-2)
        return packed, scales

    def decode(self, planes: tuple[Tensor, ...]) -> Tensor:
        packed, scales = planes
        packed = packed.unflatten(-1, (-1, _HALF))
        quants = torch.cat((packed & 0x0F, packed >> 4), dim=-1).float() - 8.0
        return (quants * scales.float().unsqueeze(-1)).flatten(-2)

    def input(self, x: Tensor) -> Input:
        return quantise_input(x)


def _extremes(grouped: Tensor) -> Tensor:
    """[n, k/32]: of every group the weight of greatest magnitude, signed; the first of equal ones, and NaN before all others."""
    most, least = grouped.amax(-1), grouped.amin(-1)  # both NaN where one weight is
    extremes = torch.where(most > -least, most, least)
    tied = most == -least  # one in a hundred; asking argmax everywhere takes five times as long
    groups = grouped[tied]
    extremes[tied] = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)).squeeze(-1)
    return extremes


INT4 = Int4()
