"""Shapes of well-known models, with ReLU in place of SiLU: what the synthetic checkpoints look like. Torch-free."""

from dataclasses import replace

from models.spec import FfnRule, ModelSpec, Rope

TINY_LLAMA = ModelSpec(
    family="llama",
    n_layers=22,
    hidden=2048,
    n_heads=32,
    n_kv_heads=4,
    head_dim=64,
    n_neurons=5632,
    vocab=32000,
    context=2048,
    rule=FfnRule("gated", "relu"),
    rope=Rope(10000.0, 64),
)
LLAMA2_7B = ModelSpec(
    family="llama",
    n_layers=32,
    hidden=4096,
    n_heads=32,
    n_kv_heads=32,
    head_dim=128,
    n_neurons=11008,
    vocab=32000,
    context=4096,
    rule=FfnRule("gated", "relu"),
    rope=Rope(10000.0, 128),
)
MISTRAL_7B = replace(LLAMA2_7B, family="mistral", n_kv_heads=8, n_neurons=14336)
BAMBOO_7B = replace(MISTRAL_7B, family="bamboo", rule=FfnRule("gated_both", "relu"))
SHAPES = {"1.1b": TINY_LLAMA, "7b": LLAMA2_7B, "mistral": MISTRAL_7B, "bamboo": BAMBOO_7B}
