"""Vector IR that turns a stored row into float32 in order: the bits of its format's `decode`. Knows no matrix and no threads."""

from collections.abc import Callable
from functools import cache

from llvmlite import ir

from cpu_ops.kernels.ir import (
    F32,
    I8,
    I16,
    I32,
    I64,
    Builder,
    Value,
    constant,
    halves_to_floats,
    load,
    offset,
    repeat,
    splat,
    store,
    vector,
)
from cpu_ops.kernels.machine_code import Library, library
from cpu_ops.kernels.target import Module, Target
from models.bits import GROUP, FormatName

FLOATS, INTS, TOGETHER = vector(F32, 16), vector(I32, 16), 16
HALF = GROUP // 2

Widen = Callable[[Builder, Value, Value, Value, Value], None]  # builder, weights, scales, k, out


def _float32(builder: Builder, weights: Value, scales: Value, k: Value, out: Value) -> None:
    def some(index: Value, count: int) -> None:
        store(builder, load(builder, offset(builder, weights, index, 4), vector(F32, count)), offset(builder, out, index, 4))

    _in_vectors(builder, k, some)


def _bf16(builder: Builder, weights: Value, scales: Value, k: Value, out: Value) -> None:
    """The upper half of a float32."""

    def some(index: Value, count: int) -> None:
        wide = builder.zext(load(builder, offset(builder, weights, index, 2), vector(I16, count)), vector(I32, count))
        made = builder.bitcast(builder.shl(wide, constant(wide.type, 16)), vector(F32, count))
        store(builder, made, offset(builder, out, index, 4))

    _in_vectors(builder, k, some)


def _int8(builder: Builder, weights: Value, scales: Value, k: Value, out: Value) -> None:
    def halves(group: Value) -> list[Value]:
        at = offset(builder, weights, group, GROUP)
        return [builder.sext(load(builder, builder.add(at, constant(I64, part)), vector(I8, HALF)), INTS) for part in (0, HALF)]

    _by_groups(builder, scales, k, out, halves)


def _int4(builder: Builder, weights: Value, scales: Value, k: Value, out: Value) -> None:
    def halves(group: Value) -> list[Value]:
        both = builder.zext(load(builder, offset(builder, weights, group, HALF), vector(I8, HALF)), INTS)
        nibbles = builder.and_(both, constant(INTS, 15)), builder.lshr(both, constant(INTS, 4))
        return [builder.sub(each, constant(INTS, 8)) for each in nibbles]

    _by_groups(builder, scales, k, out, halves)


def _in_vectors(builder: Builder, k: Value, some: Callable[[Value, int], None]) -> None:
    """some(first, how many) over 0 … k."""
    whole = builder.udiv(k, constant(I64, TOGETHER))
    repeat(builder, constant(I64, 0), whole, lambda index: some(builder.mul(index, constant(I64, TOGETHER)), TOGETHER))
    repeat(builder, builder.mul(whole, constant(I64, TOGETHER)), k, lambda index: some(index, 1))


def _by_groups(builder: Builder, scales: Value, k: Value, out: Value, halves: Callable[[Value], list[Value]]) -> None:
    def one(group: Value) -> None:
        bits = load(builder, offset(builder, scales, group, 2), vector(I16, 1))
        scale = splat(builder, builder.extract_element(halves_to_floats(builder, bits), constant(I32, 0)), HALF)
        for part, made in enumerate(halves(group)):
            at = builder.add(offset(builder, out, group, 4 * GROUP), constant(I64, 4 * HALF * part))
            store(builder, builder.fmul(builder.sitofp(made, FLOATS), scale), at)

    repeat(builder, constant(I64, 0), builder.udiv(k, constant(I64, GROUP)), one)


WIDENS: dict[FormatName, Widen] = {"float32": _float32, "bf16": _bf16, "int8": _int8, "int4": _int4}


@cache
def compiled_widen(name: FormatName) -> tuple[int, Library]:
    """The address of a function of (weights, scales, k, out), and the library that must live as long as it is used."""
    made = library(f"widen-{name}", lambda target: emitted_widen(name, target))
    return widen_address(name, made), made


def widen_address(name: FormatName, made: Library) -> int:
    """Where a library of `emitted_widen` has the function."""
    return made.address(_name(name))


def emitted_widen(name: FormatName, target: Target) -> Module:
    """The function, as `target` can run it."""
    module = Module(f"widen.{name}", target)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 4), _name(name))
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    WIDENS[name](builder, *function.args)
    builder.ret_void()
    return module


def _name(name: FormatName) -> str:
    return f"thermocline_widen_{name}"
