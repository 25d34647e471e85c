"""The clock, read by kernels: nanoseconds since some moment, 20 to 40 of them a reading."""

import time
from typing import Any

from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import I32, I64, Builder, Value, constant
from cpu_ops.kernels.region import declared

MONOTONIC = getattr(time, "CLOCK_MONOTONIC", 1)  # its number differs between systems
INSTANT = ir.LiteralStructType([I64, I64])  # seconds, nanoseconds


@intrinsic
def nanoseconds(typing: Any) -> Any:
    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        with builder.goto_entry_block():
            instant = builder.alloca(INSTANT)
        kind = ir.FunctionType(I32, [I32, INSTANT.as_pointer()])
        builder.call(declared(builder, "clock_gettime", kind), [constant(I32, MONOTONIC), instant])
        seconds, rest = (builder.extract_value(builder.load(instant), place) for place in range(2))
        return builder.add(builder.mul(seconds, constant(I64, 10**9)), rest)

    return types.int64(), emit
