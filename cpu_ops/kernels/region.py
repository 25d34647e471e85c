"""A parallel region that never asks for Python's GIL.

Numba's own `prange` takes the GIL on the way into every region, `nogil` or not, and gives it back at once: a decode step would
queue up behind the event loop a hundred times, and a thread that Python holds up could not compute at all. Here the thread pool
that Numba has loaded is called directly.
"""

from typing import Any

from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import I8, I32, I64, Builder, Value, repeat

LONG = types.int64
POINTER, LONGS = I8.as_pointer(), I64.as_pointer()
SHARED = 3  # int64 before the threads' next parts: the body's data, how many parts there are, how many threads
MOST_PIECES = 64  # threads that have a stretch of their own; more than that cannot be kept busy by memory
# One piece of work: (arguments, counts, strides, data).
PIECE = ir.FunctionType(ir.VoidType(), [POINTER.as_pointer(), LONGS, LONGS, POINTER])
POOL = ir.FunctionType(ir.VoidType(), [PIECE.as_pointer(), POINTER.as_pointer(), LONGS, LONGS, POINTER, I64, I64, I64])


@intrinsic
def in_parallel(typing: Any, body: Any, address: Any, parts: Any) -> Any:
    """body(address, part) for every part in 0..parts, shared among the threads that the calling thread has set. `body` must not raise.

    Each thread has a stretch of them, in order, for a part asks for what the next one reads; whoever is done with its own takes from the
    others' stretches. So a thread that is slower, or held up, holds nobody up.
    """
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
    """What one thread does, as the pool calls it. Its one argument is an address that starts from 0 and has a stride of 1: which thread."""
    function = ir.Function(builder.module, PIECE, builder.module.get_unique_name("piece"))
    function.linkage = "internal"
    callee = context.declare_function(builder.module, compiled.fndesc)
    context.active_code_library.add_linking_library(compiled.library)
    inside = ir.IRBuilder(function.append_basic_block())
    own, work = inside.ptrtoint(inside.load(function.args[0]), I64), inside.bitcast(function.args[3], LONGS)
    data, parts, pieces = (inside.load(inside.gep(work, [ir.Constant(I64, place)])) for place in range(SHARED))

    def stretch(step: Value) -> None:
        whose = inside.urem(inside.add(own, step), pieces)
        following = inside.gep(work, [inside.add(whose, ir.Constant(I64, SHARED))])
        end = _first_part(inside, inside.add(whose, ir.Constant(I64, 1)), parts, pieces)
        taking, computing, over = (function.append_basic_block(name) for name in ("taking", "computing", "over"))
        inside.branch(taking)
        inside.position_at_end(taking)
        part = inside.atomic_rmw("add", following, ir.Constant(I64, 1), "monotonic")
        inside.cbranch(inside.icmp_signed("<", part, end), computing, over)
        inside.position_at_end(computing)
        context.call_conv.call_function(inside, callee, signature.return_type, signature.args, [data, part])
        inside.branch(taking)
        inside.position_at_end(over)

    repeat(inside, ir.Constant(I64, 0), pieces, stretch)
    inside.ret_void()
    return function


def _first_part(builder: Builder, piece: Value, parts: Value, pieces: Value) -> Value:
    return builder.udiv(builder.mul(piece, parts), pieces)


def _call_pool(builder: Builder, piece: Value, data: Value, parts: Value) -> None:
    zero, one = ir.Constant(I64, 0), ir.Constant(I64, 1)
    with builder.goto_entry_block():
        base, counts, strides = builder.alloca(POINTER), builder.alloca(I64), builder.alloca(I64)
        work = builder.alloca(I64, SHARED + MOST_PIECES)
    threads = builder.call(declared(builder, "get_num_threads", ir.FunctionType(I64, [])), [])
    pieces = parts
    for most in (threads, ir.Constant(I64, MOST_PIECES)):
        pieces = builder.select(builder.icmp_signed("<", most, pieces), most, pieces)
    for value, place in ((ir.Constant(POINTER, None), base), (pieces, counts), (one, strides)):
        builder.store(value, place)
    for number, value in enumerate((data, parts, pieces)):
        builder.store(value, builder.gep(work, [ir.Constant(I64, number)]))

    def start(index: Value) -> None:
        builder.store(_first_part(builder, index, parts, pieces), builder.gep(work, [builder.add(index, ir.Constant(I64, SHARED))]))

    repeat(builder, zero, pieces, start)
    pool = declared(builder, "numba_parallel_for", POOL)
    builder.call(pool, [piece, base, counts, strides, builder.bitcast(work, POINTER), zero, one, threads])


def declared(builder: Builder, name: str, kind: Any) -> Value:
    """A function of the process, the pool's for one; Numba's own code may have declared it in this module with other pointer types."""
    known = builder.module.globals.get(name)
    return ir.Function(builder.module, kind, name) if known is None else builder.bitcast(known, kind.as_pointer())
