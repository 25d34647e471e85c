"""int4 rows: byte j of a group holds weight j in its low nibble and weight j + 16 in its high one, both plus 8."""

from collections.abc import Sequence

from cpu_ops.kernels.byte_dot import small_dot
from cpu_ops.kernels.group_rows import HALF, GroupRowCode, Met, Width, for_runs, nothing_to_start, split_groups, width_of
from cpu_ops.kernels.ir import F32, I32, I64, Builder, Value, constant, joined, load, multiply_add, offset, pick, splat, store, vector
from models.bits import GROUP

NIBBLES = 8  # of a 32-bit word
WORDS = 4  # of a group


class Int4Code(GroupRowCode):
    name = "int4"
    group_bytes = HALF
    sums = 4

    def rows_together(self, builder: Builder) -> tuple[int, ...]:
        """As many as registers hold: a pass loads and stores every raw sum once."""
        return 4, 2, 1

    def weights(self, builder: Builder, packed: Value) -> tuple[Value, ...]:
        words = vector(I32, packed.type.count // 4)
        high = builder.bitcast(builder.lshr(builder.bitcast(packed, words), constant(words, 4)), packed.type)
        return builder.and_(packed, constant(packed.type, 15)), builder.and_(high, constant(packed.type, 15))

    def values(self, builder: Builder, address: Value, groups: int) -> tuple[Value, ...]:
        return split_groups(builder, address, groups)

    def starts(self, builder: Builder, values: tuple[Value, ...]) -> Value:
        """−8 · values: so the nibbles may stay unsigned."""
        eights = constant(values[0].type, 8)
        zeros = nothing_to_start(values)
        return builder.sub(zeros, small_dot(builder, (eights,) * len(values), values, zeros))

    def product(self, builder: Builder, weights: tuple[Value, ...], met: Met) -> Value:
        return small_dot(builder, weights, met.values, met.starts)

    def raw_floats(self, k: int) -> int:
        """Nibble s of every 32-bit word of the quants, times 2^4s; then each group's offset."""
        return k + k // GROUP

    def raw_lanes(self, width: Width) -> int:
        return WORDS

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
        width = width_of(builder)

        def run(first: Value, count: int) -> None:
            groups = min(count, width.lanes // WORDS)
            for place in range(count):
                noted = builder.add(builder.add(k, first), constant(I64, width.lane_of(place, count)))
                offsets = splat(builder, load(builder, offset(builder, raw, noted, 4), F32), WORDS)
                start = builder.add(first, constant(I64, place - place % groups))
                at = builder.add(offset(builder, raw, start, 4 * GROUP), constant(I64, 4 * WORDS * (place % groups)))
                group = builder.add(first, constant(I64, place))
                self._settle_group(builder, at, 4 * WORDS * groups, offsets, offset(builder, out, group, 4 * GROUP))

        for_runs(builder, k, run)

    def _settle_group(self, builder: Builder, at: Value, stride_bytes: int, offsets: Value, out: Value) -> None:
        for half in range(2):
            parts = []
            for nibble in range(half, NIBBLES, 2):
                part = load(builder, builder.add(at, constant(I64, stride_bytes * nibble)), vector(F32, WORDS))
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
