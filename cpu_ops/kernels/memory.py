"""Memory asked for before it is needed, and memory that lasts as long as a call."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import CACHE_LINE, I8, I64, Builder, Value, constant, offset, prefetch, repeat


@intrinsic
def ask_for(typing: Any, address: Any, size: Any) -> Any:
    """Prefetches every cache line of `size` bytes. What lies beyond the memory that is ours does no harm."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        address, size = arguments
        lines = builder.udiv(size, constant(I64, CACHE_LINE))
        repeat(builder, constant(I64, 0), lines, lambda line: prefetch(builder, offset(builder, address, line, CACHE_LINE)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


def room(nbytes: int) -> Callable[[], Any]:
    """f(): the address of `nbytes` on the stack of the function that calls it; an array from Numba's heap takes 60 ns."""

    def typed(typing: Any) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            with builder.goto_entry_block():
                place = builder.alloca(ir.ArrayType(I8, nbytes))
                place.align = CACHE_LINE
            return builder.ptrtoint(place, I64)

        return types.int64(), emit

    return intrinsic(typed)
