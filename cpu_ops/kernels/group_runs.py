"""Runs of groups: how many groups of a row are taken at once, by what vectors the target has. Knows no format."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cpu_ops.kernels.byte_dot import has_wide_bytes
from cpu_ops.kernels.ir import I64, Builder, Value, constant, repeat
from cpu_ops.kernels.target import target_of
from cpu_ops.kernels.transpose import WORDS
from models.bits import GROUP


class Width(NamedTuple):
    """How many 32-bit lanes the target's vectors have, and how long runs are, in groups, longest first.

    The scales of the longest run are in `order`.
    """

    lanes: int
    runs: tuple[int, ...]
    order: tuple[int, ...]

    def lane_of(self, place: int, count: int) -> int:
        """Where the scale of a group lies among those of its run."""
        return self.order.index(place) if count == len(self.order) else place

    @property
    def blocks(self) -> list[int]:
        """Which of `lanes` blocks of 16 bytes is in each lane of their `transposed` words."""
        quarter = self.lanes // WORDS
        return [vector * quarter + place for place in range(quarter) for vector in range(WORDS)]

    def met_order(self, count: int) -> Sequence[int]:
        """The scales of a run as its products want them."""
        return self.blocks if count == self.runs[0] else range(count)

    def sums_order(self, count: int) -> Sequence[int]:
        """And as sums of rows do."""
        return self.order if count == len(self.order) else range(count)


WIDE = Width(16, (16, 4, 1), tuple(range(16)))
# Two groups multiplied at once have their scales in different halves of the vector: crossing the middle costs AVX2 three times as much.
NARROW = Width(8, (8, 1), (0, 2, 4, 6, 1, 3, 5, 7))


def width_of(builder: Builder) -> Width:
    return WIDE if has_wide_bytes(target_of(builder)) else NARROW


def for_runs(builder: Builder, k: Value, body: Callable[[Value, int], None]) -> None:
    """body(first group, how many) over all groups, in runs of the target's lengths."""
    groups, done = builder.udiv(k, constant(I64, GROUP)), constant(I64, 0)
    for count in width_of(builder).runs:
        first, size = done, constant(I64, count)
        runs = builder.udiv(builder.sub(groups, first), size)

        def run(index: Value, first: Value = first, count: int = count) -> None:
            body(builder.add(first, builder.mul(index, constant(I64, count))), count)

        repeat(builder, constant(I64, 0), runs, run)
        done = builder.add(first, builder.mul(runs, size))
