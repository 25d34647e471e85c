"""The inner product of 32 signed bytes with 32 signed bytes: the one place that asks what the CPU can do.

It asks Numba's target features, which the user may narrow (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES), never the host's: LLVM aborts
the process when told to use an instruction the target lacks. VNNI is not used yet; its product would stand beside `_avx2`.
"""

from typing import Any

from llvmlite import ir

from cpu_ops.kernels.ir import I8, I16, I32, Builder, Value, constant, pairs_added, vector
from cpu_ops.kernels.target import target_features

BYTES, WORDS, INTS = vector(I8, 32), vector(I16, 16), vector(I32, 8)


def byte_dot(builder: Builder, weights: Value, values: Value) -> Value:
    """weights, values int8 [32], values never −128 -> int32 [8]: lane j sums products 4j … 4j+3. Exact."""
    return _avx2(builder, weights, values) if "+avx2" in target_features() else _portable(builder, weights, values)


def _portable(builder: Builder, weights: Value, values: Value) -> Value:
    wide = vector(I32, 32)
    products = builder.mul(builder.sext(weights, wide), builder.sext(values, wide))
    return pairs_added(builder, pairs_added(builder, products))


def _avx2(builder: Builder, weights: Value, values: Value) -> Value:
    """|w| · (v with w's sign), unsigned times signed: at most 2 · 128 · 127, so the int16 sums do not saturate."""

    def call(name: str, result: Any, a: Value, b: Value) -> Value:
        kind = ir.FunctionType(result, [a.type, b.type])
        return builder.call(builder.module.declare_intrinsic("llvm.x86.avx2." + name, fnty=kind), (a, b))

    size = call("psign.b", BYTES, weights, weights)  # written as a select, LLVM turns int4's into three instructions
    words = call("pmadd.ub.sw", WORDS, size, call("psign.b", BYTES, values, weights))
    return call("pmadd.wd", INTS, words, constant(WORDS, 1))
