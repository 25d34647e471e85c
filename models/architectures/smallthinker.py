"""SmallThinker: experts with ReLU gates whose router reads the layer's input; some layers turn nothing, some have a window."""

from dataclasses import replace

from models.architectures import llama
from models.architectures.config import Config
from models.architectures.experts import with_experts
from models.architectures.family import Family, Names
from models.errors import BadConfig
from models.spec import FfnRule, ModelSpec, Routing

EXPERTS: Names = {
    "layers.{layer}.router": "model.layers.{layer}.block_sparse_moe.primary_router.weight",
    "layers.{layer}.experts.{expert}.gate": "model.layers.{layer}.block_sparse_moe.experts.{expert}.gate.weight",
    "layers.{layer}.experts.{expert}.up": "model.layers.{layer}.block_sparse_moe.experts.{expert}.up.weight",
    "layers.{layer}.experts.{expert}.down": "model.layers.{layer}.block_sparse_moe.experts.{expert}.down.weight",
}
# Of models that were never published, which early files still mention.
NOT_THERE = {"use_qk_norm": False, "moe_enable_secondary_experts": False, "moe_enable_early_router": True, "norm_topk_prob": True}


def names(spec: ModelSpec) -> Names:
    return {**llama.NAMES, **EXPERTS}


def rectified(config: Config) -> FfnRule:
    config.expect("hidden_act", "relu")
    return FfnRule("gated", "relu")


def read_spec(config: Config) -> ModelSpec:
    spec = llama.read_llama(config, rectified, neurons="moe_ffn_hidden_size", tied=True)
    for key, tested in NOT_THERE.items():
        config.expect(key, tested)
    if not all(config.marks("moe_layer_layout", spec.n_layers)):
        raise BadConfig(config.path, "moe_layer_layout", "has layers without experts, which has not been tested")
    for ignored in ("dense_ffn_hidden_size", "moe_secondary_expert_size", "num_experts_per_tok", "moe_intermediate_size"):
        config.get(ignored)  # sizes of what is not there, and copies of what is
    softmax = config.flag("moe_primary_router_apply_softmax", default=False)
    routing = Routing(score="softmax" if softmax else "sigmoid", before_attention=True)
    spec = with_experts(config, spec, "moe_num_primary_experts", routing, active="moe_num_active_primary_experts")
    windowed, turned = config.marks("sliding_window_layout", spec.n_layers), config.marks("rope_layout", spec.n_layers)
    config.get("sliding_window_size")  # stands there though no layer has it
    config.finish()
    if any(windowed):
        spec = replace(spec, sliding_window=config.count("sliding_window_size"), windowed=windowed)
    return spec if all(turned) else replace(spec, turned=turned)


FAMILY = Family(("smallthinker",), ("SmallThinkerForCausalLM",), read_spec, names, llama.IGNORED)
