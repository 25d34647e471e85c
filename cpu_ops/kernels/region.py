"""A parallel region that never asks for Python's GIL.

Numba's own `prange` takes the GIL on the way into every region, `nogil` or not, and gives it back at once: a decode step would
queue up behind the event loop a hundred times, and a thread that Python holds up could not compute at all. Here the thread pool
that Numba has loaded is called directly.
"""

from typing import Any

from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import I8, I32, I64, Builder, Value

LONG = types.int64
POINTER, LONGS = I8.as_pointer(), I64.as_pointer()
# One piece of work: (arguments, counts, strides, data); the pool adds piece · stride to each argument.
PIECE = ir.FunctionType(ir.VoidType(), [POINTER.as_pointer(), LONGS, LONGS, POINTER])
POOL = ir.FunctionType(ir.VoidType(), [PIECE.as_pointer(), POINTER.as_pointer(), LONGS, LONGS, POINTER, I64, I64, I64])


@intrinsic
def in_parallel(typing: Any, body: Any, address: Any, parts: Any) -> Any:
    """body(address, part) for every part in 0..parts, shared among the threads that the calling thread has set. `body` must not raise."""
    signature = body.get_call_type(typing, (LONG, LONG), {})

    def emit(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Value:
        _, data, count = arguments
        piece = _piece(context, builder, body.dispatcher.overloads[signature.args], signature)
        _call_pool(builder, piece, data, count)
        return context.get_dummy_value()

    return types.void(body, LONG, LONG), emit


@intrinsic
def use_threads(typing: Any, count: Any) -> Any:
    """`set_num_threads` for the calling thread, without a check and without Python."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        setter = declared(builder, "set_num_threads", ir.FunctionType(ir.VoidType(), [I32]))
        builder.call(setter, [builder.trunc(arguments[0], I32)])
        return context.get_dummy_value()

    return types.void(LONG), emit


def _piece(context: Any, builder: Builder, compiled: Any, signature: Any) -> Value:
    """The body as the pool calls it. Its one argument is an address that starts from 0 and has a stride of 1: the part."""
    function = ir.Function(builder.module, PIECE, builder.module.get_unique_name("piece"))
    function.linkage = "internal"
    inside = ir.IRBuilder(function.append_basic_block())
    part = inside.ptrtoint(inside.load(function.args[0]), I64)
    callee = context.declare_function(builder.module, compiled.fndesc)
    context.active_code_library.add_linking_library(compiled.library)
    data = inside.ptrtoint(function.args[3], I64)
    context.call_conv.call_function(inside, callee, signature.return_type, signature.args, [data, part])
    inside.ret_void()
    return function


def _call_pool(builder: Builder, piece: Value, data: Value, count: Value) -> None:
    zero, one = ir.Constant(I64, 0), ir.Constant(I64, 1)
    with builder.goto_entry_block():
        base, counts, strides = builder.alloca(POINTER), builder.alloca(I64), builder.alloca(I64)
    for value, place in ((ir.Constant(POINTER, None), base), (count, counts), (one, strides)):
        builder.store(value, place)
    threads = builder.call(declared(builder, "get_num_threads", ir.FunctionType(I64, [])), [])
    pool = declared(builder, "numba_parallel_for", POOL)
    builder.call(pool, [piece, base, counts, strides, builder.inttoptr(data, POINTER), zero, one, threads])


def declared(builder: Builder, name: str, kind: Any) -> Value:
    """A function of the process, the pool's for one; Numba's own code may have declared it in this module with other pointer types."""
    known = builder.module.globals.get(name)
    return ir.Function(builder.module, kind, name) if known is None else builder.bitcast(known, kind.as_pointer())
