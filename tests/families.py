"""A small random checkpoint for every family, by the name of its row in the parity test.

What transformers knows is written by it (TRANSFORMERS), and its logits are the reference; the rest is written by hand under
the names that the published files have (BY_HAND), and `tests/reference.py` is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from transformers import (
    FalconForCausalLM,
    MistralForCausalLM,
    MixtralForCausalLM,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
    Qwen3MoeForCausalLM,
)

from tests.checkpoints import (
    LLAMA_VARIANTS,
    OWN_VARIANTS,
    SHAPE,
    Config,
    Shapes,
    llama_shapes,
    make_by_hand,
    make_llama,
    make_pretrained,
    write_by_hand,
)

OPT: Config = {
    "vocab_size": 290,
    "hidden_size": 64,
    "ffn_dim": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 288,
    "eos_token_id": 289,
}
FALCON: Config = {
    "vocab_size": 290,
    "hidden_size": 64,
    "ffn_hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 288,
    "eos_token_id": 289,
    "activation": "relu",
}
SILU: Config = SHAPE | {"hidden_act": "silu"}
EXPERTS: Config = {"num_local_experts": 4, "num_experts_per_tok": 2}
QWEN_EXPERTS: Config = {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 64, "head_dim": 32}

TRANSFORMERS: Mapping[str, tuple[type[PreTrainedModel], Config]] = {
    "opt": (OPTForCausalLM, OPT),
    "opt_350m": (OPTForCausalLM, OPT | {"do_layer_norm_before": False, "word_embed_proj_dim": 32}),
    "opt_gelu_unbiased": (OPTForCausalLM, OPT | {"activation_function": "gelu", "enable_bias": False, "tie_word_embeddings": False}),
    "falcon_7b": (FalconForCausalLM, FALCON),
    "falcon_7b_gelu": (FalconForCausalLM, FALCON | {"activation": "gelu", "bias": True}),
    "falcon_40b": (FalconForCausalLM, FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_one_norm": (
        FalconForCausalLM,
        FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1, "tie_word_embeddings": False},
    ),
    "falcon_sequential": (FalconForCausalLM, FALCON | {"multi_query": False, "parallel_attn": False, "bias": True}),
    "mistral": (MistralForCausalLM, SILU | {"sliding_window": None}),
    "mistral_window": (MistralForCausalLM, SILU | {"sliding_window": 8}),
    "mixtral": (MixtralForCausalLM, SILU | EXPERTS | {"sliding_window": None}),
    "mixtral_relu": (MixtralForCausalLM, SHAPE | EXPERTS | {"sliding_window": 8}),
    "qwen2": (Qwen2ForCausalLM, SILU),
    "qwen2_windows": (Qwen2ForCausalLM, SILU | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "qwen3": (Qwen3ForCausalLM, SILU | {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3_moe": (Qwen3MoeForCausalLM, SILU | QWEN_EXPERTS),
    "qwen3_moe_normalised": (Qwen3MoeForCausalLM, SILU | QWEN_EXPERTS | {"norm_topk_prob": True, "num_experts_per_tok": 1}),
}

TURBO_MIXTRAL: Config = {
    "model_type": "turbosparsemixtral",
    "architectures": ["TurboSparseMixtralForCausalLM"],
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": None,
    "rope_theta": 1e6,
    "router_aux_loss_coef": 0.02,
}
SMALLTHINKER: Config = {
    "model_type": "smallthinker",
    "architectures": ["SmallThinkerForCausalLM"],
    "model_name": "smallthinker_4b_instruct",
    "head_dim": 32,
    "moe_ffn_hidden_size": 64,
    "moe_num_primary_experts": 6,
    "moe_num_active_primary_experts": 3,
    "norm_topk_prob": True,
    "num_hidden_layers": 3,
    "rope_layout": [0, 1, 1],
    "rope_scaling": None,
    "rope_theta": 1.5e6,
    "sliding_window_layout": [0, 1, 0],
    "sliding_window_size": 8,
    "tie_word_embeddings": True,
}
MINICPM: Config = {
    "model_type": "minicpm",
    "architectures": ["MiniCPMForCausalLM"],
    "hidden_act": "silu",
    "scale_emb": 12,
    "scale_depth": 1.4,
    "dim_model_base": 16,
    "tie_word_embeddings": True,
}
BY_HAND: Mapping[str, tuple[Config, Callable[[Config], Shapes]]] = {
    "relullama": ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, llama_shapes),
    "prosparse": (
        {"model_type": "sparsellama", "architectures": ["SparseLlamaForCausalLM"], "hidden_act": "fatrelu", "hidden_act_param": 0.01},
        llama_shapes,
    ),
    "minicpm": (MINICPM, llama_shapes),
    "minicpm_s": (MINICPM | {"hidden_act": "fatrelu", "hidden_act_param": 0.03}, llama_shapes),
    "turbosparse_mistral": (OWN_VARIANTS["bamboo"], lambda config: turbosparse_mistral_shapes(config)),
    "turbosparse_mixtral": (TURBO_MIXTRAL, lambda config: turbosparse_mixtral_shapes(config)),
    "supersparse_mixtral": (
        TURBO_MIXTRAL | {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]},
        lambda config: turbosparse_mixtral_shapes(config),
    ),
    "smallthinker": (SMALLTHINKER, lambda config: smallthinker_shapes(config)),
    "smallthinker_softmax": (
        SMALLTHINKER | {"moe_primary_router_apply_softmax": True, "tie_word_embeddings": False, "rope_layout": [1, 1, 1]},
        lambda config: smallthinker_shapes(config),
    ),
}
RANKS = (32, 64)  # of the predictors, by layer
REFERENCED = (*OWN_VARIANTS, *BY_HAND)  # transformers does not know them, or not all that is in them
ALL = (*TRANSFORMERS, *BY_HAND)


def make_variant(folder: Path, name: str) -> Path:
    """The checkpoint of a name here, or among the variants of LLaMA and its nearest."""
    return make_changed(folder, name, {})


def make_changed(folder: Path, name: str, others: Config) -> Path:
    """The same with other values in its config, for a name of BY_HAND."""
    if name in LLAMA_VARIANTS:
        return make_llama(folder, LLAMA_VARIANTS[name])
    if name in OWN_VARIANTS:
        return make_by_hand(folder, OWN_VARIANTS[name])
    if name in TRANSFORMERS:
        return make_pretrained(folder, *TRANSFORMERS[name])
    changes, shapes_of = BY_HAND[name]
    config: Config = {"rope_theta": 10000.0, "tie_word_embeddings": False} | SHAPE | changes | others
    if config["model_type"] == "smallthinker":
        config = {key: value for key, value in config.items() if key not in ("intermediate_size", "hidden_act")}
    return write_by_hand(folder, config, shapes_of(config))


def turbosparse_mistral_shapes(config: Config) -> Shapes:
    shapes = dict(llama_shapes(config))
    for layer in range(config["num_hidden_layers"]):
        shapes |= predictor_shapes(f"model.layers.{layer}.mlp", config, RANKS[layer])
    return shapes


def predictor_shapes(module: str, config: Config, rank: int) -> Shapes:
    inward, outward = (rank, config["hidden_size"]), (config["intermediate_size"], rank)
    return {f"{module}.predictor.fc1.weight": inward, f"{module}.predictor.fc2.weight": outward}


def turbosparse_mixtral_shapes(config: Config) -> Shapes:
    shapes = without_ffn(llama_shapes(config))
    hidden, neurons, experts = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}.block_sparse_moe"
        shapes[f"{block}.gate.weight"] = (experts, hidden)
        for expert in range(experts):
            at = f"{block}.experts.{expert}"
            shapes |= {f"{at}.w1.weight": (neurons, hidden), f"{at}.w3.weight": (neurons, hidden), f"{at}.w2.weight": (hidden, neurons)}
            shapes |= predictor_shapes(at, config, RANKS[layer])
    return shapes


def smallthinker_shapes(config: Config) -> Shapes:
    neurons, hidden, experts = config["moe_ffn_hidden_size"], config["hidden_size"], config["moe_num_primary_experts"]
    shapes = without_ffn(llama_shapes(config | {"intermediate_size": neurons}))
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}.block_sparse_moe"
        shapes[f"{block}.primary_router.weight"] = (experts, hidden)
        for expert in range(experts):
            at = f"{block}.experts.{expert}"
            shapes |= {f"{at}.gate.weight": (neurons, hidden), f"{at}.up.weight": (neurons, hidden), f"{at}.down.weight": (hidden, neurons)}
    return shapes


def without_ffn(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if ".mlp." not in name}
