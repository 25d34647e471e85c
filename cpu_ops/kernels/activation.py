"""Activations on one float32. Codes are the places in ACTIVATIONS and KINDS, so that one compiled kernel serves every rule."""

import math
from typing import Any, get_args

import numpy as np
from numba import types

from cpu_ops.kernels.compile import inner, intrinsic
from cpu_ops.kernels.exp import exponential
from cpu_ops.kernels.ir import F32, I64, Builder, Value, constant, load, offset, repeat, store, vector
from models.spec import Activation, FfnKind, FfnRule

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
KINDS: tuple[FfnKind, ...] = get_args(FfnKind)
RELU, FATRELU, RELU2, SILU = (ACTIVATIONS.index(name) for name in ("relu", "fatrelu", "relu2", "silu"))
LANES = 16  # of what is computed in vectors
PLAIN, GATED, GATED_BOTH = (KINDS.index(kind) for kind in ("plain", "gated", "gated_both"))


def rule_codes(rule: FfnRule) -> tuple[int, int]:
    """Kind and activation, as numbers."""
    return KINDS.index(rule.kind), ACTIVATIONS.index(rule.activation)


@inner
def activate(z: np.float32, rule: Any) -> np.float32:
    """`rule` has `activation` and `threshold`. NaN is under no threshold and stays NaN. The smooth ones round once, from float64."""
    return activated(z, rule.activation, np.float32(rule.threshold))


@inner
def activated(z: np.float32, activation: int, threshold: np.float32) -> np.float32:
    """`activate` with the rule's two numbers."""
    if activation == FATRELU:
        return np.float32(0.0) if z < threshold else z
    if activation == RELU:
        return np.float32(0.0) if z <= np.float32(0.0) else z
    if activation == RELU2:
        return np.float32(0.0) if z <= np.float32(0.0) else z * z
    wide = np.float64(z)
    if activation == SILU:
        return np.float32(wide / (1.0 + math.exp(-wide)))
    return np.float32(0.5 * wide * (1.0 + math.erf(wide * math.sqrt(0.5))))


@intrinsic
def silu_all(typing: Any, at: Any, vectors: Any) -> Any:
    """z / (1 + e^-z) in place of LANES · `vectors` float32 at an address: 3 units in the last place, in a tenth of the time of float64."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        at, vectors = arguments
        kind = vector(F32, LANES)
        one, most = constant(kind, 1.0), constant(kind, 88.0)

        def step(index: Value) -> None:
            place = offset(builder, at, index, 4 * LANES)
            z = load(builder, place, kind)
            less = builder.fneg(z)
            less = builder.select(builder.fcmp_ordered(">", less, most), most, less)
            store(builder, builder.fdiv(z, builder.fadd(one, exponential(builder, less))), place)

        repeat(builder, constant(I64, 0), vectors, step)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit
