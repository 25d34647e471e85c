"""How many bytes a stored row takes, per format. Torch-free, so that `placement` can plan before anything is downloaded."""

from dataclasses import dataclass
from typing import Literal, get_args

FormatName = Literal["float32", "bf16", "int8", "int4"]
FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)
GROUP = 32  # weights that share one float16 scale, along the row


@dataclass(frozen=True, slots=True)
class Bits:
    """Bits of one weight, and whether a float16 scale stands for every GROUP of them."""

    weight: int
    grouped: bool

    def row_bytes(self, k: int) -> int:
        """Bytes of one row of `k` weights, its scales included."""
        return k * self.weight // 8 + (k // GROUP * 2 if self.grouped else 0)


BITS: dict[FormatName, Bits] = {
    "float32": Bits(32, grouped=False),
    "bf16": Bits(16, grouped=False),
    "int8": Bits(8, grouped=True),
    "int4": Bits(4, grouped=True),
}


def embedding_format(neurons: FormatName) -> FormatName:
    """Embedding and head are where four bits hurt most, so an int4 model keeps them in int8."""
    return "int8" if neurons == "int4" else neurons
