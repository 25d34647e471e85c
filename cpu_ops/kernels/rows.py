"""The words kernels are written in: rows and inputs as numbers, and `dot`, `axpy`, `axpy_two` and `ask` on them."""

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import inner, intrinsic
from cpu_ops.kernels.ir import F32, I64, Builder, Value, pointer

LONG, FLOAT = types.int64, types.float32


class KernelRows(NamedTuple):
    """A matrix: the addresses of its format's functions; each plane's row 0 and the bytes from one row to the next."""

    dot: int
    axpy: int
    axpy_two: int
    ask: int
    weights: int
    weights_stride: int
    scales: int
    scales_stride: int


class KernelInput(NamedTuple):
    """The vectors of a call: token 0 and the bytes from one token to the next, of values and of scales."""

    values: int
    values_stride: int
    scales: int
    scales_stride: int


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
def _call_axpy(typing: Any, f: Any, row: Any, scales: Any, factor: Any, out: Any, k: Any) -> Any:
    return types.void(LONG, LONG, LONG, FLOAT, LONG, LONG), _call(ir.VoidType(), [I64, I64, F32, I64, I64])


@intrinsic
def _call_axpy_two(
    typing: Any, f: Any, a: Any, a_scales: Any, a_factor: Any, b: Any, b_scales: Any, b_factor: Any, out: Any, k: Any
) -> Any:
    kinds = [I64, I64, F32, I64, I64, F32, I64, I64]
    return types.void(LONG, LONG, LONG, FLOAT, LONG, LONG, FLOAT, LONG, LONG), _call(ir.VoidType(), kinds)


@intrinsic
def _call_ask(typing: Any, f: Any, row: Any, scales: Any, k: Any) -> Any:
    return types.void(LONG, LONG, LONG, LONG), _call(ir.VoidType(), [I64] * 3)


@intrinsic
def address_of(typing: Any, array: Any) -> Any:
    """The address of a NumPy array's first element."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        structure = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(structure.data, I64)

    return LONG(array), emit


@inner
def dot(rows: KernelRows, i: int, x: KernelInput, token: int, k: int) -> Any:
    """Row `i` · token `token` of `x` -> float32."""
    row, scales = rows.weights + i * rows.weights_stride, rows.scales + i * rows.scales_stride
    return _call_dot(rows.dot, row, scales, x.values + token * x.values_stride, x.scales + token * x.scales_stride, k)


@inner
def axpy(rows: KernelRows, i: int, factor: Any, out: int, k: int) -> None:
    """out[:k] += factor · row i; `out` is the address of float32 values."""
    row, scales = rows.weights + i * rows.weights_stride, rows.scales + i * rows.scales_stride
    _call_axpy(rows.axpy, row, scales, factor, out, k)


@inner
def axpy_two(rows: KernelRows, i: int, i_factor: Any, j: int, j_factor: Any, out: int, k: int) -> None:
    """`axpy` of row i, then of row j, to the same bits, in one pass over `out`."""
    a, a_scales = rows.weights + i * rows.weights_stride, rows.scales + i * rows.scales_stride
    b, b_scales = rows.weights + j * rows.weights_stride, rows.scales + j * rows.scales_stride
    _call_axpy_two(rows.axpy_two, a, a_scales, i_factor, b, b_scales, j_factor, out, k)


@inner
def ask(rows: KernelRows, i: int, k: int) -> None:
    """Prefetches row i."""
    _call_ask(rows.ask, rows.weights + i * rows.weights_stride, rows.scales + i * rows.scales_stride, k)
