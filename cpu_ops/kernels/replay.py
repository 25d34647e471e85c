"""Kernel calls one after the other, without Python."""

from typing import Any

from cpu_ops.kernels.call import call_one
from cpu_ops.kernels.clock import nanoseconds
from cpu_ops.kernels.compile import kernel
from cpu_ops.kernels.rows import longs_at


@kernel
def replay(calls: int, count: int) -> None:
    """Calls the functions at int64 [count, 2], address and argument."""
    numbers = longs_at(calls, 2 * count)
    for i in range(count):
        call_one(numbers[2 * i], numbers[2 * i + 1])


@kernel
def timed_replay(calls: int, count: int, stamps: int) -> None:
    """`replay` that writes the clock to int64 [count + 1]: before the first call and after each."""
    numbers, times = longs_at(calls, 2 * count), longs_at(stamps, count + 1)
    times[0] = nanoseconds()
    for i in range(count):
        call_one(numbers[2 * i], numbers[2 * i + 1])
        times[i + 1] = nanoseconds()


def function_of(compiled: Any) -> int:
    """The address of a kernel (one that has been called) as a C function, void (int64)."""
    (overload,) = compiled.overloads.values()
    return int(overload.library.get_pointer_to_function(overload.fndesc.llvm_cfunc_wrapper_name))
