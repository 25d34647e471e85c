"""Activations on one float32. Codes are the places in ACTIVATIONS and KINDS, so that one compiled kernel serves every rule."""

import math
from typing import NamedTuple, get_args

import numpy as np

from cpu_ops.kernels.compile import inner
from models.spec import Activation, FfnKind, FfnRule

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
KINDS: tuple[FfnKind, ...] = get_args(FfnKind)
RELU, FATRELU, RELU2, SILU = (ACTIVATIONS.index(name) for name in ("relu", "fatrelu", "relu2", "silu"))
PLAIN, GATED = KINDS.index("plain"), KINDS.index("gated")


class RuleCodes(NamedTuple):
    kind: int
    activation: int


class KernelRule(NamedTuple):
    codes: RuleCodes
    threshold: float


def rule_codes(rule: FfnRule) -> RuleCodes:
    return RuleCodes(KINDS.index(rule.kind), ACTIVATIONS.index(rule.activation))


@inner
def activate(z: np.float32, rule: KernelRule) -> np.float32:
    """NaN is under no threshold and stays NaN. The smooth ones are computed in float64 and rounded once."""
    if rule.codes.activation == FATRELU:
        return np.float32(0.0) if z < np.float32(rule.threshold) else z
    if rule.codes.activation == RELU:
        return np.float32(0.0) if z <= np.float32(0.0) else z
    if rule.codes.activation == RELU2:
        return np.float32(0.0) if z <= np.float32(0.0) else z * z
    wide = np.float64(z)
    if rule.codes.activation == SILU:
        return np.float32(wide / (1.0 + math.exp(-wide)))
    return np.float32(0.5 * wide * (1.0 + math.erf(wide * math.sqrt(0.5))))
