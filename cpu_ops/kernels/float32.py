"""float32 rows."""

from cpu_ops.kernels.float_rows import FloatRowCode
from cpu_ops.kernels.ir import F32, Builder, Value, load, vector


class Float32Code(FloatRowCode):
    name = "float32"
    weight_bytes = 4

    def weights(self, builder: Builder, address: Value, lanes: int) -> Value:
        return load(builder, address, vector(F32, lanes))
