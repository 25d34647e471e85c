"""What a format has to say to have kernels: code for four things done with one stored row.

Each is a small function of addresses, compiled by itself; kernels call it through its address. So kernels are compiled once for
all formats, and a format is compiled in a tenth of a second.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

from llvmlite import ir
from numba.core.compiler_lock import global_compiler_lock

from cpu_ops.kernels.ir import CACHE_LINE, F32, I64, Builder, Value, constant, offset, prefetch, repeat
from cpu_ops.kernels.target import codegen

VOID = ir.VoidType()


class Row(NamedTuple):
    """A row, or an input vector: addresses of its weights (or values) and of its scales, as IR values."""

    weights: Value
    scales: Value


class RowCode(ABC):
    """Emits one format's code. Every loop adds in an order that depends on `k` alone."""

    name: ClassVar[str]

    @abstractmethod
    def dot(self, builder: Builder, row: Row, x: Row, k: Value) -> Value:
        """row · x -> float32."""

    @abstractmethod
    def axpy(self, builder: Builder, rows: Sequence[Row], factors: Sequence[Value], out: Value, k: Value) -> None:
        """out[k] += factor · row[k], one row after the other, in one pass over `out` (float32 [K])."""

    @abstractmethod
    def plane_bytes(self, builder: Builder, k: Value) -> tuple[Value, Value]:
        """Bytes of a row's weights and of its scales."""


class Addresses(NamedTuple):
    """dot(row, x, k) -> float32; axpy(row, factor, out, k); axpy_two(row, factor, row, factor, out, k); ask(row, k).

    A row is two int64 addresses. `axpy_two` gives the bits of two `axpy`; `ask` prefetches every cache line of a row, its scales
    too: in a plane of their own they are a second random access.
    """

    dot: int
    axpy: int
    axpy_two: int
    ask: int


@cache
def compiled(code: RowCode) -> tuple[Addresses, Any]:
    """The functions' addresses, and the library that must live as long as they are used."""
    library = codegen().create_library(f"thermocline.{code.name}")
    module = library.create_ir_module(code.name)
    names = [_emit(module, code, emit) for emit in (_dot, _axpy, _axpy_two, _ask)]
    with global_compiler_lock:
        library.add_ir_module(module)
        library.finalize()
    return Addresses(*(library.get_pointer_to_function(name) for name in names)), library


def _emit(module: Any, code: RowCode, emit: Any) -> str:
    result, kinds, body = emit(code)
    function = ir.Function(module, ir.FunctionType(result, kinds), f"thermocline_{code.name}{emit.__name__}")
    body(ir.IRBuilder(function.append_basic_block("entry")), *function.args)
    return str(function.name)


def _dot(code: RowCode) -> Any:
    def body(builder: Builder, weights: Value, scales: Value, x: Value, x_scales: Value, k: Value) -> None:
        builder.ret(code.dot(builder, Row(weights, scales), Row(x, x_scales), k))

    return F32, [I64] * 5, body


def _axpy(code: RowCode) -> Any:
    def body(builder: Builder, weights: Value, scales: Value, factor: Value, out: Value, k: Value) -> None:
        code.axpy(builder, [Row(weights, scales)], [factor], out, k)
        builder.ret_void()

    return VOID, [I64, I64, F32, I64, I64], body


def _axpy_two(code: RowCode) -> Any:
    def body(builder: Builder, *arguments: Value) -> None:
        a, a_scales, a_factor, b, b_scales, b_factor, out, k = arguments
        code.axpy(builder, [Row(a, a_scales), Row(b, b_scales)], [a_factor, b_factor], out, k)
        builder.ret_void()

    return VOID, [I64, I64, F32, I64, I64, F32, I64, I64], body


def _ask(code: RowCode) -> Any:
    def body(builder: Builder, weights: Value, scales: Value, k: Value) -> None:
        for address, size in zip((weights, scales), code.plane_bytes(builder, k), strict=True):
            lines = builder.udiv(builder.add(size, constant(I64, CACHE_LINE - 1)), constant(I64, CACHE_LINE))
            _ask_lines(builder, address, lines)
        builder.ret_void()

    return VOID, [I64, I64, I64], body


def _ask_lines(builder: Builder, address: Value, lines: Value) -> None:
    repeat(builder, constant(I64, 0), lines, lambda line: prefetch(builder, offset(builder, address, line, CACHE_LINE)))
