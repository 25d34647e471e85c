"""Activations on one float32. Codes are the places in ACTIVATIONS and KINDS, so that one compiled kernel serves every rule."""

import math
from typing import Any, get_args

import numpy as np

from cpu_ops.kernels.compile import inner
from models.spec import Activation, FfnKind, FfnRule

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
KINDS: tuple[FfnKind, ...] = get_args(FfnKind)
RELU, FATRELU, RELU2, SILU = (ACTIVATIONS.index(name) for name in ("relu", "fatrelu", "relu2", "silu"))
PLAIN, GATED, GATED_BOTH = (KINDS.index(kind) for kind in ("plain", "gated", "gated_both"))


def rule_codes(rule: FfnRule) -> tuple[int, int]:
    """Kind and activation, as numbers."""
    return KINDS.index(rule.kind), ACTIVATIONS.index(rule.activation)


@inner
def activate(z: np.float32, rule: Any) -> np.float32:
    """`rule` has `activation` and `threshold`. NaN is under no threshold and stays NaN. The smooth ones round once, from float64."""
    if rule.activation == FATRELU:
        return np.float32(0.0) if z < np.float32(rule.threshold) else z
    if rule.activation == RELU:
        return np.float32(0.0) if z <= np.float32(0.0) else z
    if rule.activation == RELU2:
        return np.float32(0.0) if z <= np.float32(0.0) else z * z
    wide = np.float64(z)
    if rule.activation == SILU:
        return np.float32(wide / (1.0 + math.exp(-wide)))
    return np.float32(0.5 * wide * (1.0 + math.erf(wide * math.sqrt(0.5))))
