"""Counters that threads share: who is the last to finish a piece of work."""

from typing import Any

from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import I64, Builder, Value, constant, pointer


@intrinsic
def is_last(typing: Any, address: Any, parts: Any) -> Any:
    """Counts the caller's part at int64 `address` as done; whether all `parts` are. Then the counter is zero again, as it was.

    Whoever is last sees what the others have written before they counted.
    """

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        address, parts = arguments
        at = pointer(builder, address, I64)
        done = builder.add(builder.atomic_rmw("add", at, constant(I64, 1), "acq_rel"), constant(I64, 1))
        last = builder.icmp_signed("==", done, parts)
        with builder.if_then(last):
            builder.store(constant(I64, 0), at)
        return last

    return types.boolean(types.int64, types.int64), emit
