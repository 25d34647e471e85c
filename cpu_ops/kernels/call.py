"""Calling, from a kernel, a function of addresses that lies at an address."""

from typing import Any

from llvmlite import ir
from numba import types

from cpu_ops.kernels.compile import intrinsic
from cpu_ops.kernels.ir import I64, Builder, Value, pointer

LONG = types.int64


def _emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
    function, *rest = arguments
    builder.call(pointer(builder, function, ir.FunctionType(ir.VoidType(), [I64] * len(rest))), rest)
    return context.get_dummy_value()


@intrinsic
def call_one(typing: Any, function: Any, a: Any) -> Any:
    """function(a)."""
    return types.void(LONG, LONG), _emit


@intrinsic
def call_three(typing: Any, function: Any, a: Any, b: Any, c: Any) -> Any:
    """function(a, b, c)."""
    return types.void(*[LONG] * 4), _emit


@intrinsic
def call_four(typing: Any, function: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """function(a, b, c, d)."""
    return types.void(*[LONG] * 5), _emit


@intrinsic
def call_five(typing: Any, function: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """function(a, b, c, d, e)."""
    return types.void(*[LONG] * 6), _emit


@intrinsic
def call_nine(typing: Any, function: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any) -> Any:
    """function(a, …, i)."""
    return types.void(*[LONG] * 10), _emit
