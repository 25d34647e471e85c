"""Qwen3: LLaMA with a norm on each head's query and key; windows as Qwen2."""

from dataclasses import replace

from models.architectures import llama, qwen2
from models.architectures.config import Config
from models.architectures.family import Family, Names
from models.spec import ModelSpec

QK_NORMS: Names = {
    "layers.{layer}.q_norm": "model.layers.{layer}.self_attn.q_norm.weight",
    "layers.{layer}.k_norm": "model.layers.{layer}.self_attn.k_norm.weight",
}


def names(spec: ModelSpec) -> Names:
    return {**llama.NAMES, **QK_NORMS}


def read_spec(config: Config) -> ModelSpec:
    spec = qwen2.with_windows(config, replace(llama.read_llama(config), qk_norm=True))
    config.finish()
    return spec


FAMILY = Family(("qwen3",), ("Qwen3ForCausalLM",), read_spec, names, llama.IGNORED)
