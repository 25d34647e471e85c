"""Asking for memory before it is needed."""

from typing import Any

from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import CACHE_LINE, I64, Builder, Value, constant, offset, prefetch, repeat


@intrinsic
def ask_for(typing: Any, address: Any, size: Any) -> Any:
    """Prefetches every cache line of `size` bytes. What lies beyond the memory that is ours does no harm."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        address, size = arguments
        lines = builder.udiv(size, constant(I64, CACHE_LINE))
        repeat(builder, constant(I64, 0), lines, lambda line: prefetch(builder, offset(builder, address, line, CACHE_LINE)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit
