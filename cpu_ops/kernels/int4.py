"""int4 rows: byte j of a group holds weight j in its low nibble and weight j + 16 in its high one, both plus 8."""

from collections.abc import Sequence

from cpu_ops.kernels.byte_dot import small_dot
from cpu_ops.kernels.group_rows import HALF, GroupRowCode, Met, for_groups, lane_of, nothing_to_start
from cpu_ops.kernels.ir import F32, I8, I32, I64, Builder, Value, constant, joined, load, multiply_add, offset, pick, splat, store, vector
from models.bits import GROUP

NIBBLES = 8  # of a 32-bit word


class Int4Code(GroupRowCode):
    name = "int4"
    group_bytes = HALF
    span = 2
    lanes = 4
    together = 4

    def halves(self, builder: Builder, address: Value, groups: int) -> tuple[Value, Value]:
        packed = load(builder, address, vector(I8, HALF * groups))
        words = vector(I32, packed.type.count // 4)
        high = builder.bitcast(builder.lshr(builder.bitcast(packed, words), constant(words, 4)), packed.type)
        return builder.and_(packed, constant(packed.type, 15)), builder.and_(high, constant(packed.type, 15))

    def starts(self, builder: Builder, halves: tuple[Value, Value]) -> Value:
        """−8 · values: so the nibbles may stay unsigned."""
        eights = constant(halves[0].type, 8)
        zeros = nothing_to_start(halves)
        return builder.sub(zeros, small_dot(builder, (eights, eights), halves, zeros))

    def product(self, builder: Builder, weights: tuple[Value, Value], met: Met) -> Value:
        return small_dot(builder, weights, met.halves, met.starts)

    def raw_floats(self, k: int) -> int:
        """Nibble s of every 32-bit word of the quants, times 2^4s; then each group's offset."""
        return k + k // GROUP

    def note(self, builder: Builder, scales: Sequence[Value], raw: Value, first: Value, k: Value) -> None:
        at = offset(builder, raw, builder.add(k, first), 4)
        result = load(builder, at, scales[0].type)
        for scale in scales:
            result = multiply_add(builder, scale, constant(scale.type, 8.0), result)
        store(builder, result, at)

    def add(self, builder: Builder, weights: Sequence[Value], scales: Sequence[Value], raw: Value) -> None:
        lanes = scales[0].type.count
        packed = [load(builder, address, vector(I32, lanes)) for address in weights]
        for nibble in range(NIBBLES):
            at = builder.add(raw, constant(I64, 4 * lanes * nibble))
            result = load(builder, at, vector(F32, lanes))
            for words, scale in zip(packed, scales, strict=True):
                result = multiply_add(builder, builder.sitofp(_in_place(builder, words, nibble), scale.type), scale, result)
            store(builder, result, at)

    def settle(self, builder: Builder, raw: Value, out: Value, k: Value) -> None:
        def together(first: Value, count: int) -> None:
            for place in range(count):
                groups = self.span if count > 1 else 1
                group = builder.add(first, constant(I64, place))
                noted = builder.add(builder.add(k, first), constant(I64, lane_of(place)))
                offsets = splat(builder, load(builder, offset(builder, raw, noted, 4), F32), 4)
                start = builder.add(first, constant(I64, place - place % groups))
                at = builder.add(offset(builder, raw, start, 4 * GROUP), constant(I64, 16 * (place % groups)))
                self._settle_group(builder, at, 16 * groups, offsets, offset(builder, out, group, 4 * GROUP))

        for_groups(builder, k, together)

    def _settle_group(self, builder: Builder, at: Value, stride_bytes: int, offsets: Value, out: Value) -> None:
        for half in range(2):
            parts = []
            for nibble in range(half, NIBBLES, 2):
                part = load(builder, builder.add(at, constant(I64, stride_bytes * nibble)), vector(F32, 4))
                scale = 1.0 if nibble == NIBBLES - 1 else 2.0 ** (-4 * nibble)
                parts.append(builder.fsub(builder.fmul(part, constant(part.type, scale)), offsets))
            all_four = joined(builder, joined(builder, *parts[:2]), joined(builder, *parts[2:]))
            order = [4 * byte + word for word in range(4) for byte in range(4)]
            store(builder, pick(builder, all_four, order), builder.add(out, constant(I64, 4 * HALF * half)))


def _in_place(builder: Builder, words: Value, nibble: int) -> Value:
    """A nibble of every word, 0 … 15 times a power of two; the highest shifted down, or it would be a sign."""
    if nibble == NIBBLES - 1:
        return builder.lshr(words, constant(words.type, 4 * nibble))
    return builder.and_(words, constant(words.type, 15 << 4 * nibble))
