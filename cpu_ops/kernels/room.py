"""The working memory of a part. It goes by addresses: an array that is handed on is counted, with locked instructions, once a call."""

from typing import Any, NamedTuple

from cpu_ops.kernels.compile import inner
from cpu_ops.kernels.rows import LISTED

BLOCK = 128  # neurons looked at before those that pass are read
TOGETHER = 4  # of which `second` and `down` are read in turn: with the next ones, that were asked for meanwhile, they fit the first cache
QUEUE = TOGETHER + BLOCK
LISTED_BYTES = 8 * LISTED


class Room(NamedTuple):
    """Addresses, for a part of `own` neurons and T tokens.

    chosen, marks: int64 [own], the neurons that are looked at, and for which tokens (bit t is token t; of one token there are none).
    passed, h: int64 [own] and float32 [own, T], those that passed so far, and their activations.
    listed, z: a block's rows, and its products float32 [BLOCK, T]. rows, factors, waiting: the rows of `down` that wait to be added and
    their factors, [T, QUEUE], and how many they are, int64 [T].
    """

    chosen: int
    marks: int
    passed: int
    h: int
    listed: int
    z: int
    rows: int
    factors: int
    waiting: int


@inner
def room_at(address: int, own: int, tokens: int) -> Any:
    """A Room in `room_bytes` of memory."""
    marks = address + 8 * own
    passed = marks + 8 * own
    listed = passed + 8 * own
    rows = listed + LISTED_BYTES * BLOCK
    waiting = rows + LISTED_BYTES * QUEUE * tokens
    factors = waiting + 8 * tokens
    z = factors + 4 * QUEUE * tokens
    return Room(address, marks, passed, z + 4 * BLOCK * tokens, listed, z, rows, factors, waiting)


@inner
def room_bytes(own: int, tokens: int) -> int:
    return 24 * own + LISTED_BYTES * BLOCK + tokens * (LISTED_BYTES * QUEUE + 8 + 4 * QUEUE + 4 * BLOCK + 4 * own)
