"""GGUF's block types as float32, and as rows of ours where those hold the same numbers.

Bytes come as uint8 [n, row_bytes], the blocks of a row one after the other; every scale is a float16 (little-endian).
    Q8_0  d, 32 int8                          q·d            Q4_0  d, 16 bytes of nibbles                (q − 8)·d
    Q4_1  d, m, 16 bytes of nibbles           q·d + m        Q5_0  d, 4 bytes of fifth bits, nibbles     (q − 16)·d
    Q5_1  d, m, 4 bytes of fifth bits, nibbles                                                           q·d + m
Byte j of the nibbles holds weight j (low) and j + 16 (high). The K types are decoded by the `gguf` package.
"""

from collections.abc import Callable

import gguf
import torch
from gguf.quants import dequantize
from torch import Tensor

from models.bits import FormatName
from models.checkpoint.gguf_types import TYPES, BlockType
from models.formats import FORMATS
from models.rows import Rows

Decoder = Callable[[Tensor], Tensor]  # blocks uint8 [n, blocks, nbytes] -> float32 [n, blocks, weights]


def decode(kind: BlockType, data: Tensor) -> Tensor:
    """uint8 [n, row_bytes] -> float32 [n, k]."""
    blocks = data.unflatten(1, (-1, kind.nbytes))
    return DECODERS[kind.name](blocks).flatten(1)


def rows_of(kind: BlockType, data: Tensor, name: FormatName) -> Rows | None:
    """Rows in format `name` that hold exactly the numbers of the file, or None where the format has no such rows."""
    if (kind.name, name) not in EXACT:
        return None
    blocks = data.unflatten(1, (-1, kind.nbytes))
    planes = EXACT[kind.name, name](blocks)
    k = blocks.shape[1] * kind.weights
    return Rows(FORMATS[name], k, tuple(plane.flatten(1) for plane in planes))


def scales(blocks: Tensor, at: int) -> Tensor:
    """float16 [n, blocks, 1] from two bytes of each block."""
    return blocks[..., at : at + 2].contiguous().view(torch.float16)


def nibbles(packed: Tensor) -> Tensor:
    """uint8 [n, blocks, 16] -> uint8 [n, blocks, 32]."""
    return torch.cat((packed & 0x0F, packed >> 4), dim=-1)


def five_bits(blocks: Tensor, at: int) -> Tensor:
    """uint8 [n, blocks, 32] from 32 fifth bits and 16 bytes of nibbles."""
    places = torch.arange(8, dtype=torch.uint8)
    fifth = (blocks[..., at : at + 4].unsqueeze(-1) >> places & 1).flatten(-2)
    return nibbles(blocks[..., at + 4 :]) | fifth << 4


def _plain(dtype: torch.dtype) -> Decoder:
    return lambda blocks: blocks.contiguous().view(dtype).float()


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[..., 2:].view(torch.int8).float() * scales(blocks, 0).float()


def _q4_0(blocks: Tensor) -> Tensor:
    return (nibbles(blocks[..., 2:]).float() - 8.0) * scales(blocks, 0).float()


def _q4_1(blocks: Tensor) -> Tensor:
    return nibbles(blocks[..., 4:]).float() * scales(blocks, 0).float() + scales(blocks, 2).float()


def _q5_0(blocks: Tensor) -> Tensor:
    return (five_bits(blocks, 2).float() - 16.0) * scales(blocks, 0).float()


def _q5_1(blocks: Tensor) -> Tensor:
    return five_bits(blocks, 4).float() * scales(blocks, 0).float() + scales(blocks, 2).float()


def _by_package(kind: BlockType) -> Decoder:
    number = gguf.GGMLQuantizationType[kind.name]

    def decoder(blocks: Tensor) -> Tensor:
        if not blocks.numel():  # which the package cannot reshape
            return torch.empty(*blocks.shape[:2], kind.weights)
        return torch.from_numpy(dequantize(blocks.flatten(1).contiguous().numpy(), number)).view(*blocks.shape[:2], -1)

    return decoder


OWN: dict[str, Decoder] = {
    "F32": _plain(torch.float32),
    "F16": _plain(torch.float16),
    "BF16": _plain(torch.bfloat16),
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
}
DECODERS: dict[str, Decoder] = {kind.name: OWN.get(kind.name) or _by_package(kind) for kind in TYPES.values()}
# (type, format) -> planes [n, blocks, …] that hold the same numbers: as they are, or small quants as bytes
EXACT: dict[tuple[str, FormatName], Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    ("Q8_0", "int8"): lambda blocks: (blocks[..., 2:].contiguous().view(torch.int8), scales(blocks, 0)),
    ("Q4_0", "int4"): lambda blocks: (blocks[..., 2:], scales(blocks, 0)),
    ("Q4_0", "int8"): lambda blocks: (nibbles(blocks[..., 2:]).view(torch.int8) - 8, scales(blocks, 0)),
    ("Q5_0", "int8"): lambda blocks: (five_bits(blocks, 2).view(torch.int8) - 16, scales(blocks, 0)),
}
