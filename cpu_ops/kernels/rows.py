"""The words kernels are written in: blocks of numbers in memory that say where rows and inputs lie, and what can be done with them.

A kernel takes the address of a block, one integer: that costs Python 1 µs, where tuples and arrays cost several each, and a
caller that is not Python can do it too.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import inner, intrinsic
from cpu_ops.kernels.ir import F32, I64, Builder, Value, pointer

LONG, FLOAT = types.int64, types.float32
IN_ORDER = 4096  # bytes ahead that are asked for: with 1,024 every row began with a wait for its scales; 4,096 to 10,240 do as well
SCATTERED = 0

# A matrix: the addresses of its format's functions (see `row_code.Addresses`), each plane's row 0 and the bytes from one row
# to the next, how many rows and weights, the float32 numbers of its raw sums, and the bytes of a
# prepared token (0: nothing to prepare).
ROWS = np.dtype(
    [(name, np.int64) for name in ("dot", "dots", "axpys", "settle", "ask", "prepare", "products")]
    + [(name, np.int64) for name in ("weights", "weights_stride", "scales", "scales_stride", "n", "k", "raw_floats", "prepared_bytes")]
)
# The vectors of a call: token 0 and the bytes from one token to the next, of values and of scales.
INPUT = np.dtype([(name, np.int64) for name in ("values", "values_stride", "scales", "scales_stride")])


def block_at(kind: np.dtype[Any]) -> Callable[[int], Any]:
    """The kernels' view of a block: a function from its address to a record of `kind`."""
    record = numba.from_dtype(kind)

    def typed(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            return builder.inttoptr(arguments[0], context.get_value_type(record))

        return record(LONG), emit

    return intrinsic(typed)


rows_at = block_at(ROWS)


def _call(result: Any, kinds: list[Any]) -> Any:
    """Code that calls the function at its first argument's address with the others."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        address, *rest = arguments
        value = builder.call(pointer(builder, address, ir.FunctionType(result, kinds)), rest)
        return value if result == F32 else context.get_dummy_value()

    return emit


@intrinsic
def _call_dot(typing: Any, f: Any, row: Any, scales: Any, x: Any, x_scales: Any, k: Any) -> Any:
    return FLOAT(LONG, LONG, LONG, LONG, LONG, LONG), _call(F32, [I64] * 5)


@intrinsic
def _call_three(typing: Any, f: Any, a: Any, b: Any, c: Any) -> Any:
    return types.void(LONG, LONG, LONG, LONG), _call(ir.VoidType(), [I64] * 3)


@intrinsic
def _call_four(typing: Any, f: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    return types.void(LONG, LONG, LONG, LONG, LONG), _call(ir.VoidType(), [I64] * 4)


@intrinsic
def _call_five(typing: Any, f: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    return types.void(LONG, LONG, LONG, LONG, LONG, LONG), _call(ir.VoidType(), [I64] * 5)


@intrinsic
def _call_nine(typing: Any, f: Any, a: Any, b: Any, c: Any, d: Any, e: Any, g: Any, h: Any, i: Any, j: Any) -> Any:
    return types.void(*[LONG] * 10), _call(ir.VoidType(), [I64] * 9)


@intrinsic
def _call_ten(typing: Any, f: Any, a: Any, b: Any, c: Any, d: Any, e: Any, g: Any, h: Any, i: Any, j: Any, k: Any) -> Any:
    return types.void(*[LONG] * 11), _call(ir.VoidType(), [I64] * 10)


@intrinsic
def address_of(typing: Any, array: Any) -> Any:
    """The address of a NumPy array's first element."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        structure = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(structure.data, I64)

    return LONG(array), emit


def _array_at(element: Any) -> Callable[[int, int], Any]:
    """Code for an array over memory that somebody else owns."""
    kind = types.Array(element, 1, "C")

    def typed(typing: Any, address: Any, count: Any) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            start, length = arguments
            data, size = context.get_data_type(element), ir.Constant(I64, element.bitwidth // 8)
            array = context.make_array(kind)(context, builder)
            place = builder.inttoptr(start, data.as_pointer())
            context.populate_array(array, data=place, shape=[length], strides=[size], itemsize=size, meminfo=None)
            return array._getvalue()

        return kind(LONG, LONG), emit

    return intrinsic(typed)


floats_at, longs_at = _array_at(FLOAT), _array_at(LONG)  # (address, count) -> float32 or int64 [count]
ints_at = _array_at(types.int32)


@inner
def weights_of(rows: Any, i: int) -> Any:
    """The address of row i."""
    return rows.weights + i * rows.weights_stride


@inner
def scales_of(rows: Any, i: int) -> Any:
    return rows.scales + i * rows.scales_stride


@inner
def dot(rows: Any, i: int, x: Any, token: int) -> Any:
    """Row `i` · token `token` of `x` -> float32."""
    there, its_scales = x.values + token * x.values_stride, x.scales + token * x.scales_stride
    return _call_dot(rows.dot, weights_of(rows, i), scales_of(rows, i), there, its_scales, rows.k)


@inner
def dots(rows: Any, i: int, x: Any, tokens: int, out: int, out_stride: int) -> None:
    """Row `i` with every token, written to the addresses out + token · out_stride: the bits of `dot`."""
    row, scales = weights_of(rows, i), scales_of(rows, i)
    _call_ten(rows.dots, row, scales, x.values, x.values_stride, x.scales, x.scales_stride, tokens, out, out_stride, rows.k)


@inner
def prepare(rows: Any, x: Any, token: int, prepared: int) -> None:
    """Lays token `token` of `x` out at an address for `products`, rows.prepared_bytes long. Those of 0 bytes are left where they are."""
    there, its_scales = x.values + token * x.values_stride, x.scales + token * x.scales_stride
    _call_four(rows.prepare, there, its_scales, prepared, rows.k)


@inner
def prepare_all(rows: Any, x: Any, tokens: int, prepared: int, prepared_stride: int) -> None:
    """Every token, at the addresses prepared + token · prepared_stride."""
    if rows.prepared_bytes > 0:
        for token in range(tokens):
            prepare(rows, x, token, prepared + token * prepared_stride)


@inner
def products(rows: Any, i: int, far: int, prepared: int, prepared_stride: int, tokens: int, out: int, out_stride: int) -> None:
    """`dots` of prepared tokens (of rows that need none: of the values themselves): the same bits, in half the time.

    `far` is IN_ORDER where the rows after i are read next, else SCATTERED.
    """
    row, scales = weights_of(rows, i), scales_of(rows, i)
    _call_nine(rows.products, row, scales, far, prepared, prepared_stride, tokens, out, out_stride, rows.k)


@inner
def axpys(rows: Any, chosen: int, factors: int, count: int, raw: int) -> None:
    """raw += factor · row for each of `count` rows, in order. `chosen` int64 [count, 2]: addresses as `weights_of` and `scales_of` give."""
    _call_five(rows.axpys, chosen, factors, count, raw, rows.k)


@inner
def settle(rows: Any, raw: int, out: int) -> None:
    """out float32 [k] = what raw sums stand for."""
    _call_three(rows.settle, raw, out, rows.k)


@inner
def ask(rows: Any, i: int) -> None:
    """Prefetches row i."""
    _call_three(rows.ask, weights_of(rows, i), scales_of(rows, i), rows.k)
