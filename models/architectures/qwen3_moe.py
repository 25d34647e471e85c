"""Qwen3-MoE: Qwen3 with experts in every layer."""

from dataclasses import replace

from models.architectures import llama, qwen3
from models.architectures.config import Config
from models.architectures.experts import with_experts
from models.architectures.family import Family, Names
from models.spec import ModelSpec, Routing

EXPERTS: Names = {
    "layers.{layer}.router": "model.layers.{layer}.mlp.gate.weight",
    "layers.{layer}.experts.{expert}.gate": "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight",
    "layers.{layer}.experts.{expert}.up": "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight",
    "layers.{layer}.experts.{expert}.down": "model.layers.{layer}.mlp.experts.{expert}.down_proj.weight",
}


def names(spec: ModelSpec) -> Names:
    return {**qwen3.names(spec), **EXPERTS}


def read_spec(config: Config) -> ModelSpec:
    spec = replace(llama.read_llama(config, neurons="moe_intermediate_size"), qk_norm=True)
    config.get("intermediate_size"), config.get("max_window_layers"), config.get("sliding_window")  # of layers that these have not
    config.expect("use_sliding_window", tested=False)
    config.expect("decoder_sparse_step", 1)
    config.expect("mlp_only_layers", [])
    count = "num_experts" if config.get("num_experts") is not None else "num_local_experts"
    spec = with_experts(config, spec, count, Routing(normalised=config.flag("norm_topk_prob", default=False)))
    config.finish()
    return spec


FAMILY = Family(("qwen3_moe",), ("Qwen3MoeForCausalLM",), read_spec, names, llama.IGNORED)
