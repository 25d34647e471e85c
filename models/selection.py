"""Selection: how it is decided which neurons a token needs. What a model allows, in words. Torch-free."""

from typing import Literal, get_args

from models.spec import FfnRule, ModelSpec

Selection = Literal["exact", "predictor"]
SELECTIONS: tuple[Selection, ...] = get_args(Selection)

_NAMES = {"relu": "ReLU", "fatrelu": "FATReLU", "relu2": "squared ReLU", "silu": "SiLU", "gelu": "GELU"}


def silence(rule: FfnRule) -> str:
    """When a neuron of this rule adds nothing."""
    name = _NAMES[rule.activation]
    if not rule.is_sparse:
        return f"{name} is never exactly zero: no neuron is silent"
    bound = f"under {rule.threshold:g}" if rule.activation == "fatrelu" else "not above zero"
    where = {"plain": "its row of up gives", "gated": "its row of gate gives", "gated_both": "its row of gate, or of up, gives"}[rule.kind]
    return f"{name}: a neuron is silent where {where} a number {bound}"


def modes(spec: ModelSpec, *, predictors: bool) -> dict[Selection, str]:
    """What each selection would do for a model; one that is not there cannot be chosen."""
    decided = "after its up" if spec.rule.kind == "plain" else "after its gate"
    after = "before its rows are read, or after its gate" if spec.masked else decided
    exact = f"skips what is silent, {after}" if spec.rule.is_sparse else "computes every neuron of what a token reaches"
    found: dict[Selection, str] = {"exact": f"{exact}; the same text as dense"}
    if predictors:
        found["predictor"] = "computes only what a predictor names, before any row is read; approximate"
    return found
