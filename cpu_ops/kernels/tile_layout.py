"""How rows and tokens lie in memory when many tokens meet a tile of rows, and what the code that lets them meet is told.

Unpacked, a lane is a row: a vector holds bytes 4m … 4m+3 of a group of as many rows as it has lanes, so four bytes of a token, the
same in every lane, meet them without a shuffle, and what a group adds up to is one lane a row. Tokens are laid out for this once.
"""

from typing import NamedTuple

import numpy as np

from cpu_ops.kernels.byte_dot import has_wide_bytes
from cpu_ops.kernels.target import Target
from models.bits import GROUP

TILE_ROWS = 32
STEPS = GROUP // 4  # of four bytes each, in a group
STEP_BYTES = TILE_ROWS * 4
GROUP_ROOM = STEPS * STEP_BYTES  # bytes of an unpacked group of a tile
DEPTH = 16  # groups of a tile unpacked at once: 16 KiB, which stay in the first cache beside some tokens' input
# A token, DEPTH groups of it: values int8 [DEPTH · GROUP], what a group's product starts from int32 [DEPTH], scales float32 [DEPTH].
STARTS, SCALES = DEPTH * GROUP, DEPTH * (GROUP + 4)
PREPARED_BYTES = DEPTH * (GROUP + 8)

# What `unpack` and `multiply` are told. Addresses: `chosen` int64 [2 · TILE_ROWS, 2], weights and scales of the rows and of those to ask
# for; `weights` and `scales` the unpacked tile; `x` DEPTH groups of token 0, prepared; `sums` float32 [tokens, TILE_ROWS], added to.
TILE = np.dtype([(name, np.int64) for name in ("chosen", "first", "groups", "weights", "scales", "tokens", "sums", "x")])
# What `listed` is told: a row of `groups` groups, where it may be unpacked and its scales be widened; token 0 of all tokens, prepared,
# and the bytes to its next DEPTH groups; int32 [count] which tokens, and float32 [count] for the products.
LISTED = np.dtype(
    [(name, np.int64) for name in ("row", "row_scales", "groups", "room", "room_scales", "x", "x_stride", "tokens", "count", "out")]
)


class Shape(NamedTuple):
    """Lanes of a vector, vectors of weights and tokens that meet while in registers. `together` falls to 1."""

    lanes: int
    vectors: int
    together: tuple[int, ...]


WIDE = Shape(16, 2, (6, 4, 2, 1))  # 12 integer and 12 float sums, two of weights: of 32 registers
NARROW = Shape(8, 2, (4, 1))  # eight int16 sums, two vectors of weights, one of input fit sixteen registers


def shape_of(target: Target) -> Shape:
    return WIDE if has_wide_bytes(target) else NARROW
