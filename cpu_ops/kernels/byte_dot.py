"""Inner products of bytes with signed bytes, exact in int32: the one place that asks what the CPU can do.

It asks Numba's target features, which the user may narrow (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES), never the host's: LLVM aborts
the process when told to use an instruction the target lacks. Values are never −128. Lane j of a result sums products 4j … 4j+3.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from cpu_ops.kernels.ir import I16, I32, Builder, Value, constant, pairs_added, vector
from cpu_ops.kernels.target import target_features


def byte_dot(builder: Builder, weights: Value, values: Value) -> Value:
    """weights, values int8 [n] -> int32 [n/4]."""
    if not _has_avx2():
        return _portable(builder, weights, values)
    size = _same_kind(builder, "psign.b", weights, weights)  # written as a select, LLVM turns it into three instructions
    return _words_added(builder, _bytes_multiplied(builder, size, _same_kind(builder, "psign.b", values, weights)))


def small_dot(builder: Builder, weights: Sequence[Value], values: Sequence[Value], start: Value) -> Value:
    """start + weights · values, over two pairs of bytes [n]: weights 0 … 15, values int8 -> int32 [n/4]."""
    pairs = list(zip(weights, values, strict=True))
    if not _has_avx2():
        return builder.add(start, builder.add(*(_portable(builder, w, v) for w, v in pairs)))
    return builder.add(start, _words_added(builder, builder.add(*(_bytes_multiplied(builder, w, v) for w, v in pairs))))


def _portable(builder: Builder, weights: Value, values: Value) -> Value:
    wide = vector(I32, weights.type.count)
    products = builder.mul(builder.sext(weights, wide), builder.sext(values, wide))
    return pairs_added(builder, pairs_added(builder, products))


def _has_avx2() -> bool:
    return "+avx2" in target_features()


def _bytes_multiplied(builder: Builder, unsigned: Value, values: Value) -> Value:
    """-> int16 [n/2], sums of two products: at most 2 · 128 · 127, so they do not saturate."""
    return _call(builder, "pmadd.ub.sw", vector(I16, unsigned.type.count // 2), unsigned, values)


def _words_added(builder: Builder, words: Value) -> Value:
    return _call(builder, "pmadd.wd", vector(I32, words.type.count // 2), words, constant(words.type, 1))


def _same_kind(builder: Builder, name: str, a: Value, b: Value) -> Value:
    return _call(builder, name, a.type, a, b)


def _call(builder: Builder, name: str, result: Any, a: Value, b: Value) -> Value:
    """The target's own instruction, on 32 bytes or on 16."""
    wide = "avx2." + name
    narrow = {"psign.b": "ssse3.psign.b.128", "pmadd.ub.sw": "ssse3.pmadd.ub.sw.128", "pmadd.wd": "sse2.pmadd.wd"}[name]
    bits = a.type.count * a.type.element.width
    kind = ir.FunctionType(result, [a.type, b.type])
    return builder.call(builder.module.declare_intrinsic("llvm.x86." + (wide if bits == 256 else narrow), fnty=kind), (a, b))
