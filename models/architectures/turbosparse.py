"""TurboSparse-Mixtral: Mixtral with ReLU on gate and up, and in each expert a predictor whose mask is part of the model.

Early files call themselves `supersparsemixtral`, or `mixtral` with relu: there the predictors' tensors tell.
"""

from dataclasses import replace

from models.architectures import llama, mixtral
from models.architectures.bamboo import both_rectified
from models.architectures.config import Config
from models.architectures.family import Family, Names, Shapes
from models.architectures.predictors import with_predictors
from models.layout import INWARD, OUTWARD
from models.spec import FfnRule, ModelSpec

EXPERT = "model.layers.{layer}.block_sparse_moe.experts.{expert}.predictor"
PREDICTORS: Names = {
    f"layers.{{layer}}.experts.{{expert}}.{INWARD}": f"{EXPERT}.fc1.weight",
    f"layers.{{layer}}.experts.{{expert}}.{OUTWARD}": f"{EXPERT}.fc2.weight",
}
FIRST = f"{EXPERT}.fc1.weight".replace("{expert}", "0")
CLASSES = ("TurboSparseMixtralForCausalLM", "SuperSparseMixtralForCausalLM")


def names(spec: ModelSpec) -> Names:
    return {**mixtral.names(spec), **PREDICTORS}


def read_spec(config: Config) -> ModelSpec:
    spec = mixtral.read_mixtral(config, both_rectified)
    config.finish()
    return spec


def refined(spec: ModelSpec, shapes: Shapes) -> ModelSpec:
    """A mask whose tensors are missing is missed by name; without any tensors there is only the config to go by."""
    return with_predictors(spec, shapes, FIRST, masks=True) if shapes else spec


def early(spec: ModelSpec, shapes: Shapes) -> ModelSpec:
    """A mixtral of ReLU that has predictors is one of these; any other is a Mixtral."""
    if spec.rule != FfnRule("gated", "relu") or FIRST.format(layer=0) not in shapes:
        return spec
    return refined(replace(spec, rule=FfnRule("gated_both", "relu")), shapes)


FAMILY = Family(("turbosparsemixtral", "supersparsemixtral", "mixtral"), CLASSES, read_spec, names, llama.IGNORED, refined=refined)
MIXTRAL = replace(mixtral.FAMILY, names=names, refined=early)
