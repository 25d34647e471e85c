"""What a format has to say to meet many tokens: how its stored bytes become bytes that are multiplied, and how those are.

Knows two formats, no matrix and no loop.
"""

from abc import ABC, abstractmethod

from cpu_ops.kernels.byte_dot import byte_dot, bytes_multiplied, has_words, small_dot, words_added
from cpu_ops.kernels.ir import F32, I8, I16, I32, Builder, Value, constant, joined, load, vector
from cpu_ops.kernels.target import Target, numba_target
from cpu_ops.kernels.tile_layout import WIDE, Shape, shape_of
from models.bits import GROUP, FormatName


class TileCode(ABC):
    """Emits what differs between formats."""

    group_bytes: int  # of the quants, as stored
    bias: int  # what unpacked weights have too much

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.bytes, self.ints, self.floats = (vector(kind, count * shape.lanes) for kind, count in ((I8, 4), (I32, 1), (F32, 1)))

    @abstractmethod
    def widened(self, builder: Builder, packed: list[Value]) -> list[Value]:
        """A group's stored bytes, four of a row in each lane -> STEPS vectors of weights."""

    @abstractmethod
    def row(self, builder: Builder, group: Value) -> Value:
        """The address of a stored group -> int8 [32], in order."""

    @abstractmethod
    def dot(self, builder: Builder, weights: Value, values: Value, sums: Value) -> Value:
        """sums int32 + weights · values, four bytes a lane."""

    def begun(self, start: Value) -> Value:
        """Where a group's sums start."""
        return start

    def add(self, builder: Builder, weights: Value, values: Value, sums: Value) -> Value:
        """A step's products onto the sums so far."""
        return self.dot(builder, weights, values, sums)

    def finished(self, builder: Builder, sums: Value, start: Value) -> Value:
        """A group's sums as int32."""
        return sums


class Int8Tile(TileCode):
    """As they are; where the one instruction wants unsigned bytes, 128 more."""

    group_bytes = GROUP

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.bias = 128 if shape is WIDE else 0

    def widened(self, builder: Builder, packed: list[Value]) -> list[Value]:
        return [self._lifted(builder, each) for each in packed]

    def row(self, builder: Builder, group: Value) -> Value:
        return self._lifted(builder, load(builder, group, vector(I8, GROUP)))

    def _lifted(self, builder: Builder, weights: Value) -> Value:
        return builder.xor(weights, constant(weights.type, 0x80)) if self.bias else weights

    def dot(self, builder: Builder, weights: Value, values: Value, sums: Value) -> Value:
        return (small_dot(builder, (weights,), (values,), sums)) if self.bias else byte_dot(builder, weights, values, sums)


class Int4Tile(TileCode):
    """Nibbles as they are, 0 … 15."""

    group_bytes = GROUP // 2
    bias = 8

    def widened(self, builder: Builder, packed: list[Value]) -> list[Value]:
        return [*(_low(builder, both) for both in packed), *(_high(builder, both) for both in packed)]

    def row(self, builder: Builder, group: Value) -> Value:
        both = load(builder, group, vector(I8, GROUP // 2))
        return joined(builder, _low(builder, both), _high(builder, both))

    def dot(self, builder: Builder, weights: Value, values: Value, sums: Value) -> Value:
        return small_dot(builder, (weights,), (values,), sums)


class Int4TileInWords(Int4Tile):
    """A group's int16 sums are at most 8 · 2 · 15 · 127 = 30,480, so one widening a group is enough."""

    def begun(self, start: Value) -> Value:
        return constant(vector(I16, 2 * self.shape.lanes), 0)

    def add(self, builder: Builder, weights: Value, values: Value, sums: Value) -> Value:
        return builder.add(sums, bytes_multiplied(builder, weights, values))

    def finished(self, builder: Builder, sums: Value, start: Value) -> Value:
        return builder.add(words_added(builder, sums), start)


def _low(builder: Builder, both: Value) -> Value:
    return builder.and_(both, constant(both.type, 15))


def _high(builder: Builder, both: Value) -> Value:
    """Shifted as words, which every target can."""
    words = vector(I32, both.type.count // 4)
    return _low(builder, builder.bitcast(builder.lshr(builder.bitcast(both, words), constant(words, 4)), both.type))


def tile_codes(target: Target | None = None) -> dict[FormatName, TileCode]:
    """The formats there is code for, on this process's target or another."""
    target = target or numba_target()
    shape = shape_of(target)
    return {"int8": Int8Tile(shape), "int4": Int4TileInWords(shape) if has_words(target) else Int4Tile(shape)}
