"""Shares of a run: the groups of it that are multiplied at once, and what an input has ready for them."""

from collections.abc import Sequence
from typing import NamedTuple

from cpu_ops.kernels.group_runs import Width
from cpu_ops.kernels.transpose import WORD_BYTES, WORDS
from models.bits import GROUP


class Share(NamedTuple):
    """Groups of a run that are multiplied at once.

    They fill so many vectors; the product's int32 start from what lies `starts` bytes into the run's input; `spread` are the places of
    its lanes' scales among those of the run.
    """

    first: int
    groups: int
    vectors: int
    starts: int
    spread: list[int]


def shares_of(width: Width, count: int, group_words: int) -> list[Share]:
    """How a run's groups are multiplied: the longest run's as many at once as fill four vectors, else one vector."""
    vectors, order = (WORDS if count == width.runs[0] else 1), width.met_order(count)
    groups = min(vectors * width.lanes // group_words, count)
    lanes, starts, found = groups * group_words // vectors, count * GROUP, []
    words = width.blocks if vectors > 1 else range(lanes)
    for first in range(0, count, groups):
        spread = [order.index(first + word * vectors // group_words) for word in words]
        found.append(Share(first, groups, vectors, starts, spread))
        starts += WORD_BYTES * lanes
    return found


def scales_at(shares: Sequence[Share]) -> int:
    """Where an input's scales lie in its run: after all starts."""
    return shares[-1].starts + WORD_BYTES * len(shares[-1].spread)
