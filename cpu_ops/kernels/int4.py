"""int4 rows: byte j of a group holds weight j in its low nibble and weight j + 16 in its high one, both plus 8."""

from llvmlite import ir

from cpu_ops.kernels.group_rows import GroupRowCode
from cpu_ops.kernels.ir import I8, I32, Builder, Value, constant, load, pick, vector
from models.bits import GROUP

HALF = GROUP // 2


class Int4Code(GroupRowCode):
    name = "int4"
    group_bytes = HALF

    def quants(self, builder: Builder, address: Value) -> Value:
        """The 16 bytes twice, the second copy shifted down by a nibble: no shuffle on the way, which is what limits AVX2."""
        words = vector(I32, 8)
        twice = pick(builder, load(builder, address, vector(I8, HALF)), [*range(HALF), *range(HALF)])
        shifts = ir.Constant(words, [ir.Constant(I32, 0)] * 4 + [ir.Constant(I32, 4)] * 4)
        nibbles = builder.bitcast(builder.lshr(builder.bitcast(twice, words), shifts), vector(I8, GROUP))
        return builder.sub(builder.and_(nibbles, constant(nibbles.type, 15)), constant(nibbles.type, 8))
