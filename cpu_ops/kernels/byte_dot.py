"""Inner products of bytes with signed bytes, exact in int32: the one place that asks what the CPU can do.

It asks the target of the module it writes into, which the user may narrow (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES), never the host:
LLVM aborts the process when told to use an instruction the target lacks. Values are never −128. Lane j of a result sums
products 4j … 4j+3.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

from llvmlite import ir

from cpu_ops.kernels.ir import I16, I32, Builder, Value, constant, pairs_added, vector
from cpu_ops.kernels.target import Target, target_of


def byte_dot(builder: Builder, weights: Value, values: Value, start: Value) -> Value:
    """start + weights · values: weights, values int8 [n]; start and result int32 [n/4]."""
    if not target_of(builder).has("avx2"):
        return _portable(builder, weights, values, start)
    # One factor has to be unsigned: |weight|, its sign given to the value. Written as a select, LLVM turns it into three instructions.
    size, signed = (_named(builder, "psign.b", weights.type, value, weights) for value in (weights, values))
    if has_vnni(target_of(builder)):
        return unsigned_dot(builder, size, signed, start)
    return builder.add(start, words_added(builder, bytes_multiplied(builder, size, signed)))


def small_dot(builder: Builder, weights: Sequence[Value], values: Sequence[Value], start: Value) -> Value:
    """The same for weights 0 … 15, over up to eight pairs of bytes [n]."""
    pairs = list(zip(weights, values, strict=True))
    if has_words(target_of(builder)):
        return builder.add(start, words_added(builder, reduce(builder.add, (bytes_multiplied(builder, w, v) for w, v in pairs))))
    add = unsigned_dot if has_vnni(target_of(builder)) else _portable
    for w, v in pairs:
        start = add(builder, w, v, start)
    return start


def has_vnni(target: Target) -> bool:
    """Whether one instruction multiplies bytes and adds four products to an int32; it has two names."""
    return target.has("avxvnni") or (target.has("avx512vnni") and target.has("avx512vl"))


def has_wide_bytes(target: Target) -> bool:
    """Whether that instruction takes 64 bytes, and everything around it as many."""
    return all(target.has(feature) for feature in ("avx512f", "avx512bw", "avx512vl", "avx512vnni"))


def has_words(target: Target) -> bool:
    """Whether it takes two, with int16 between them, which hold what a group of small weights adds up to: 8 · 2 · 15 · 127 < 2¹⁵."""
    return target.has("avx2") and not has_vnni(target)


def bytes_multiplied(builder: Builder, unsigned: Value, values: Value) -> Value:
    """-> int16 [n/2], sums of two products: at most 2 · 128 · 127, so they do not saturate."""
    return _named(builder, "pmadd.ub.sw", vector(I16, unsigned.type.count // 2), unsigned, values)


def words_added(builder: Builder, words: Value) -> Value:
    """int16 [n/2] -> int32 [n/4]."""
    return _named(builder, "pmadd.wd", vector(I32, words.type.count // 2), words, constant(words.type, 1))


def unsigned_dot(builder: Builder, unsigned: Value, values: Value, start: Value) -> Value:
    """start + unsigned · values, in one instruction: only where `has_vnni`.

    Bytes are declared as int32, as LLVM had it first: later versions still read that.
    """
    four = [builder.bitcast(each, start.type) for each in (unsigned, values)]
    bits = start.type.count * 32
    kind = ir.FunctionType(start.type, [start.type] * 3)
    return builder.call(builder.module.declare_intrinsic(f"llvm.x86.avx512.vpdpbusd.{bits}", fnty=kind), (start, *four))


def _portable(builder: Builder, weights: Value, values: Value, start: Value) -> Value:
    wide = vector(I32, weights.type.count)
    products = builder.mul(builder.sext(weights, wide), builder.sext(values, wide))
    return builder.add(start, pairs_added(builder, pairs_added(builder, products)))


def _named(builder: Builder, name: str, result: Any, a: Value, b: Value) -> Value:
    """An instruction of AVX2, on 32 bytes or on 16."""
    wide = "avx2." + name
    narrow = {"psign.b": "ssse3.psign.b.128", "pmadd.ub.sw": "ssse3.pmadd.ub.sw.128", "pmadd.wd": "sse2.pmadd.wd"}[name]
    bits = a.type.count * a.type.element.width
    kind = ir.FunctionType(result, [a.type, b.type])
    return builder.call(builder.module.declare_intrinsic("llvm.x86." + (wide if bits == 256 else narrow), fnty=kind), (a, b))
