"""The words kernels are written in: blocks of numbers in memory that say where rows and inputs lie, and what can be done with them.

A kernel takes the address of a block, one integer: that costs Python 1 µs, where tuples and arrays cost several each, and a
caller that is not Python can do it too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types

from cpu_ops.kernels.call import call_five, call_four, call_nine, call_three
from cpu_ops.kernels.compile import inner, intrinsic
from cpu_ops.kernels.ir import I64, Builder, Value

Longs = np.ndarray[Any, np.dtype[np.int64]]
LONG, FLOAT = types.int64, types.float32
LISTED = 3  # int64 of a row in a list: addresses of weights and scales, and how many bytes ahead is asked for what is read next
IN_ORDER = 4  # rows ahead, where rows are read one after the other: they are taken four at a time

# A matrix: the addresses of its format's functions (see `row_code.Addresses`), each plane's row 0 and the bytes from one row
# to the next, how many rows and weights, the float32 numbers of its raw sums, and the bytes of a
# prepared token (0: nothing to prepare).
ROWS = np.dtype(
    [(name, np.int64) for name in ("axpys", "settle", "ask", "prepare", "products")]
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


@intrinsic
def address_of(typing: Any, array: Any) -> Any:
    """The address of a NumPy array's first element. Numba frees an array after its last use, of which an address is none: see `alive`."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        structure = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(structure.data, I64)

    return LONG(array), emit


@intrinsic
def alive(typing: Any, array: Any) -> Any:
    """Nothing but a use of the array, which therefore still lives here: for memory that is used by its address, at the end of that."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        return context.get_dummy_value()

    return types.void(array), emit


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


class Planes(NamedTuple):
    """Where a matrix lies, out of its block: else each row that is listed, which is written to memory too, has it read again."""

    weights: int
    weights_stride: int
    scales: int
    scales_stride: int


@inner
def planes_of(rows: Any) -> Any:
    return Planes(rows.weights, rows.weights_stride, rows.scales, rows.scales_stride)


@inner
def weights_of(rows: Any, i: int) -> Any:
    """The address of row i, of a block or of Planes."""
    return rows.weights + i * rows.weights_stride


@inner
def scales_of(rows: Any, i: int) -> Any:
    return rows.scales + i * rows.scales_stride


@inner
def prepare(rows: Any, x: Any, token: int, prepared: int) -> None:
    """Lays token `token` of `x` out at an address for `products`, rows.prepared_bytes long. Those of 0 bytes are left where they are."""
    there, its_scales = x.values + token * x.values_stride, x.scales + token * x.scales_stride
    call_four(rows.prepare, there, its_scales, prepared, rows.k)


@inner
def prepare_all(rows: Any, x: Any, tokens: int, prepared: int, prepared_stride: int) -> None:
    """Every token, at the addresses prepared + token · prepared_stride."""
    if rows.prepared_bytes > 0:
        for token in range(tokens):
            prepare(rows, x, token, prepared + token * prepared_stride)


@inner
def list_row(rows: Any, listed: int, place: int, i: int, far: int) -> None:
    """Row i becomes number `place` of the list at an address, int64 [m, LISTED]; while it is read, what lies `far` ahead is asked for."""
    entry = longs_at(listed + 8 * LISTED * place, LISTED)
    entry[0], entry[1], entry[2] = weights_of(rows, i), scales_of(rows, i), far


@inner
def products(rows: Any, listed: int, count: int, prepared: int, prepared_stride: int, tokens: int, out: int, strides: Any) -> None:
    """`count` listed rows with every prepared token (of rows that need no preparing: the values themselves), a row's product with a token
    written to out + row · strides[0] + token · strides[1]: all are addresses and bytes."""
    call_nine(rows.products, listed, count, prepared, prepared_stride, tokens, out, strides[0], strides[1], rows.k)


@inner
def axpys(rows: Any, listed: int, factors: int, count: int, raw: int) -> None:
    """raw += factor · row for each of `count` listed rows, in order. All are addresses."""
    call_five(rows.axpys, listed, factors, count, raw, rows.k)


@inner
def settle(rows: Any, raw: int, out: int) -> None:
    """out float32 [k] = what raw sums stand for."""
    call_three(rows.settle, raw, out, rows.k)


@inner
def ask(rows: Any, i: int) -> None:
    """Prefetches row i."""
    call_three(rows.ask, weights_of(rows, i), scales_of(rows, i), rows.k)
