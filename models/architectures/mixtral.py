"""Mixtral: Mistral with experts."""

from collections.abc import Callable

from models.architectures import llama
from models.architectures.config import Config
from models.architectures.experts import with_experts
from models.architectures.family import Family, Names
from models.spec import FfnRule, ModelSpec, Routing

EXPERTS: Names = {
    "layers.{layer}.router": "model.layers.{layer}.block_sparse_moe.gate.weight",
    "layers.{layer}.experts.{expert}.gate": "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight",
    "layers.{layer}.experts.{expert}.up": "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight",
    "layers.{layer}.experts.{expert}.down": "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight",
}
CLASS = "MixtralForCausalLM"


def names(spec: ModelSpec) -> Names:
    return {**llama.NAMES, **EXPERTS}


def read_mixtral(config: Config, rule: Callable[[Config], FfnRule] = llama.activation_rule) -> ModelSpec:
    spec = llama.with_window(config, llama.read_llama(config, rule, theta=1e6, eps=1e-5))
    return with_experts(config, spec, "num_local_experts", Routing())


def read_spec(config: Config) -> ModelSpec:
    spec = read_mixtral(config)
    config.finish()
    return spec


FAMILY = Family(("mixtral",), (CLASS,), read_spec, names, llama.IGNORED)
