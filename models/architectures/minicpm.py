"""MiniCPM and MiniCPM-S: LLaMA with three scale factors, of the embedding, of what each layer adds, and of the logits."""

import math
from dataclasses import replace

from models.architectures import llama
from models.architectures.config import Config
from models.architectures.family import Family
from models.spec import ModelSpec

FACTORS = ("scale_emb", "scale_depth", "dim_model_base")


def read_spec(config: Config) -> ModelSpec:
    spec = llama.read_llama(config, tied=True)
    embedding, depth, base = (config.positive(key) for key in FACTORS)
    if spec.ffn_bias:
        config.expect("mlp_bias", tested=False)
    config.finish()
    return replace(
        spec, family="minicpm", embedding_scale=embedding, residual_scale=depth / math.sqrt(spec.n_layers), logit_scale=base / spec.hidden
    )


FAMILY = Family(("minicpm",), ("MiniCPMForCausalLM",), read_spec, llama.names, llama.IGNORED, marks=FACTORS)
