"""The naked loop that gives a matrix whose columns lie in one piece rows in one piece: a transposition, by squares in registers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import exact_kernel, intrinsic
from cpu_ops.kernels.ir import I16, I32, Builder, Value, constant, load, store, vector
from cpu_ops.kernels.rows import block_at

# A matrix [n, k] of 2 or 4 bytes an element, the bytes from one column to the next, and where its rows go.
CALL = np.dtype([(name, np.int64) for name in ("columns", "stride", "n", "k", "bytes", "out")])
call_at = block_at(CALL)
SIDE = 16


def _turned(builder: Builder, lines: Sequence[Value]) -> Sequence[Value]:
    """SIDE vectors of SIDE lanes, transposed: dealt together with the line half the square away, as often as 2 goes into SIDE."""
    for _ in range(SIDE.bit_length() - 1):
        pairs = list(zip(lines[: SIDE // 2], lines[SIDE // 2 :], strict=True))
        lines = [_dealt(builder, a, b, half) for a, b in pairs for half in (0, SIDE // 2)]
    return lines


def _dealt(builder: Builder, a: Value, b: Value, first: int) -> Value:
    """[a0, b0, a1, b1, …] of one half of two vectors."""
    lanes = [ir.Constant(I32, lane + of) for lane in range(first, first + SIDE // 2) for of in (0, SIDE)]
    return builder.shuffle_vector(a, b, ir.Constant(vector(I32, SIDE), lanes))


def _square(kind: Any) -> Callable[[int, int, int, int], None]:
    """Code for (source, bytes from column to column, target, bytes from row to row): SIDE columns of SIDE elements."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        source, stride, target, out_stride = arguments
        for line, address in zip(
            _turned(builder, [load(builder, at, vector(kind, SIDE)) for at in _lines(builder, source, stride)]),
            _lines(builder, target, out_stride),
            strict=True,
        ):
            store(builder, line, address)
        return context.get_dummy_value()

    def typed(typing: Any, source: Any, stride: Any, target: Any, out_stride: Any) -> Any:
        return types.void(*[types.int64] * 4), emit

    return intrinsic(typed)


def _lines(builder: Builder, address: Value, stride: Value) -> list[Value]:
    return [builder.add(address, builder.mul(stride, constant(stride.type, line))) for line in range(SIDE)]


def _element(kind: Any) -> Callable[[int, int], None]:
    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        store(builder, load(builder, arguments[0], kind), arguments[1])
        return context.get_dummy_value()

    def typed(typing: Any, source: Any, target: Any) -> Any:
        return types.void(types.int64, types.int64), emit

    return intrinsic(typed)


square_of_two, square_of_four = _square(I16), _square(I32)
one_of_two, one_of_four = _element(I16), _element(I32)


@exact_kernel
def turn(address: int) -> None:
    """Fills `out` of the CALL at an address: whole squares first, then what is left below and beside them."""
    call = call_at(address)
    size, stride, out_stride = call.bytes, call.stride, call.k * call.bytes
    rows, columns = call.n // SIDE * SIDE, call.k // SIDE * SIDE
    for row in range(0, rows, SIDE):
        for k in range(0, columns, SIDE):
            source, target = call.columns + k * stride + row * size, call.out + row * out_stride + k * size
            if size == 2:
                square_of_two(source, stride, target, out_stride)
            else:
                square_of_four(source, stride, target, out_stride)
    for row in range(call.n):
        for k in range(columns if row < rows else 0, call.k):
            source, target = call.columns + k * stride + row * size, call.out + row * out_stride + k * size
            if size == 2:
                one_of_two(source, target)
            else:
                one_of_four(source, target)
