"""Kernel calls one after the other, without Python."""

from typing import Any

from llvmlite import ir
from numba import types

from cpu_ops.kernels.clock import nanoseconds
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


@kernel
def timed_replay(calls: int, count: int, stamps: int) -> None:
    """`replay` that writes the clock to int64 [count + 1]: before the first call and after each."""
    numbers, times = longs_at(calls, 2 * count), longs_at(stamps, count + 1)
    times[0] = nanoseconds()
    for i in range(count):
        _call(numbers[2 * i], numbers[2 * i + 1])
        times[i + 1] = nanoseconds()


def function_of(compiled: Any) -> int:
    """The address of a kernel (one that has been called) as a C function, void (int64)."""
    (overload,) = compiled.overloads.values()
    return int(overload.library.get_pointer_to_function(overload.fndesc.llvm_cfunc_wrapper_name))
