"""bf16 rows: the upper half of a float32, so widening is a shift."""

from cpu_ops.kernels.float_rows import FloatRowCode
from cpu_ops.kernels.ir import F32, I16, I32, Builder, Value, constant, load, vector


class Bf16Code(FloatRowCode):
    name = "bf16"
    weight_bytes = 2

    def weights(self, builder: Builder, address: Value, lanes: int) -> Value:
        wide = vector(I32, lanes)
        bits = builder.zext(load(builder, address, vector(I16, lanes)), wide)
        return builder.bitcast(builder.shl(bits, constant(wide, 16)), vector(F32, lanes))
