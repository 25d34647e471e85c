"""Bamboo: Mistral's shapes, with ReLU on gate and up (dReLU). TurboSparse-Mistral is one that brings its predictors along.

They lie in the FFN's module, which sees the normed state alone. They are kept for the selection that uses them: nothing is
known of a mask in that model (of TurboSparse-Mixtral it is), and without one its neurons are computed exactly.
"""

from models.architectures import llama
from models.architectures.config import Config
from models.architectures.family import Family, Names, Shapes
from models.architectures.predictors import with_predictors
from models.errors import BadConfig
from models.layout import INWARD, OUTWARD
from models.spec import FfnRule, ModelSpec

FIRST = "model.layers.{layer}.mlp.predictor.fc1.weight"
PREDICTORS: Names = {
    f"layers.{{layer}}.experts.{{expert}}.{INWARD}": FIRST,
    f"layers.{{layer}}.experts.{{expert}}.{OUTWARD}": "model.layers.{layer}.mlp.predictor.fc2.weight",
}


def both_rectified(config: Config) -> FfnRule:
    if (act := config.text("hidden_act")) != "relu":
        family = config.text("model_type")
        raise BadConfig(config.path, "hidden_act", f"{act!r} has not been tested; a {family} model has relu")
    return FfnRule("gated_both", "relu")


def names(spec: ModelSpec) -> Names:
    return {**llama.NAMES, **PREDICTORS}


def read_spec(config: Config) -> ModelSpec:
    spec = llama.with_window(config, llama.read_llama(config, both_rectified))
    config.finish()
    return spec


def refined(spec: ModelSpec, shapes: Shapes) -> ModelSpec:
    found = FIRST.format(layer=0) in shapes
    return with_predictors(spec, shapes, FIRST, masks=False) if found else spec


FAMILY = Family(("bamboo",), ("BambooForCausalLM",), read_spec, names, llama.IGNORED, refined=refined)
