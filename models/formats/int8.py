"""int8 in groups of 32 with a float16 scale: the values of GGUF's Q8_0, q·d."""

import torch
from torch import Tensor

from models.bits import GROUP
from models.formats.base import Format, Input, Workspace, quantise_input, row_blocks


class Int8(Format):
    """Planes: quants int8 [n, k], scales float16 [n, k/32]."""

    name = "int8"
    plane_types = (torch.int8, torch.float16)

    def plane_widths(self, k: int) -> tuple[int, ...]:
        return k, k // GROUP

    def encode(self, rows: Tensor) -> tuple[Tensor, ...]:
        quants, scales = self.empty_planes(rows)
        room = Workspace(rows)
        for block in row_blocks(rows):
            grouped = room.floats(rows[block]).unflatten(-1, (-1, GROUP))
            steps = torch.maximum(grouped.amax(-1), -grouped.amin(-1)).abs_() / 127.0  # of 0 and -0 either may be the greater
            scales[block] = steps
            scaled = grouped.mul_(torch.where(steps > 0, 1.0 / steps, 0.0).unsqueeze(-1))
            scaled.add_(torch.sign(scaled), alpha=0.5)  # and towards zero: half away from zero, as C's roundf
            quants[block] = room.words(scaled).flatten(-2)
        return quants, scales

    def decode(self, planes: tuple[Tensor, ...]) -> Tensor:
        quants, scales = planes
        grouped: Tensor = quants.unflatten(-1, (-1, GROUP)).float() * scales.float().unsqueeze(-1)
        return grouped.flatten(-2)

    def input(self, x: Tensor) -> Input:
        return quantise_input(x)


INT8 = Int8()
