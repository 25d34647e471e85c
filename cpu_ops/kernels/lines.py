"""Cache lines that kernels ask for by address, to read or to write them soon. What lies beyond the memory that is ours does no harm."""

from collections.abc import Callable
from typing import Any

from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import CACHE_LINE, I64, Builder, Value, constant, offset, prefetch, repeat


def _asking(*, writing: bool) -> Callable[..., Any]:
    def typed(typing: Any, address: Any, nbytes: Any) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            address, nbytes = arguments
            lines = builder.udiv(builder.add(nbytes, constant(I64, CACHE_LINE - 1)), constant(I64, CACHE_LINE))

            def ask(line: Value) -> None:
                prefetch(builder, offset(builder, address, line, CACHE_LINE), writing=writing)

            repeat(builder, constant(I64, 0), lines, ask)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), emit

    return intrinsic(typed)


# (address, nbytes): as many lines as so many bytes take that begin one
ask_to_read = _asking(writing=False)
ask_to_write = _asking(writing=True)
