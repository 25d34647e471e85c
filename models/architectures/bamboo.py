"""Bamboo: Mistral's shapes, with ReLU on gate and up (dReLU)."""

from models.architectures import llama
from models.architectures.config import Config
from models.architectures.family import Family
from models.errors import BadConfig
from models.spec import FfnRule, ModelSpec


def both_rectified(config: Config) -> FfnRule:
    if (act := config.text("hidden_act")) != "relu":
        raise BadConfig(config.path, "hidden_act", f"{act!r} has not been tested; a bamboo model has relu")
    return FfnRule("gated_both", "relu")


def read_spec(config: Config) -> ModelSpec:
    spec = llama.with_window(config, llama.read_llama(config, both_rectified))
    config.finish()
    return spec


FAMILY = Family(("bamboo",), ("BambooForCausalLM",), read_spec, llama.names, llama.IGNORED)
