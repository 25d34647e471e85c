"""int8 rows: the quants as they are."""

from cpu_ops.kernels.group_rows import GroupRowCode
from cpu_ops.kernels.ir import I8, Builder, Value, load, vector
from models.bits import GROUP


class Int8Code(GroupRowCode):
    name = "int8"
    group_bytes = GROUP

    def quants(self, builder: Builder, address: Value) -> Value:
        return load(builder, address, vector(I8, GROUP))
