"""Mistral: LLaMA that looks back only so far."""

from models.architectures import llama
from models.architectures.config import Config
from models.architectures.family import Family
from models.spec import ModelSpec


def read_spec(config: Config) -> ModelSpec:
    spec = llama.with_window(config, llama.read_llama(config))
    config.finish()
    return spec


FAMILY = Family(("mistral",), ("MistralForCausalLM",), read_spec, llama.names, llama.IGNORED)
