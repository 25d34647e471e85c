"""Kernel calls one after the other, without Python."""

from typing import Any

from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import intrinsic, kernel
from cpu_ops.kernels.ir import I64, Builder, Value, pointer
from cpu_ops.kernels.rows import longs_at

PROCEDURE = ir.FunctionType(ir.VoidType(), [I64])


@intrinsic
def _call(typing: Any, function: Any, argument: Any) -> Any:
    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        builder.call(pointer(builder, arguments[0], PROCEDURE), [arguments[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@kernel
def replay(calls: int, count: int) -> None:
    """Calls the functions at int64 [count, 2], address and argument."""
    numbers = longs_at(calls, 2 * count)
    for i in range(count):
        _call(numbers[2 * i], numbers[2 * i + 1])


def function_of(compiled: Any) -> int:
    """The address of a kernel (one that has been called) as a C function, void (int64)."""
    (overload,) = compiled.overloads.values()
    return int(overload.library.get_pointer_to_function(overload.fndesc.llvm_cfunc_wrapper_name))
