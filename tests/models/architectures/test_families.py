"""Every family's published config is read, has the parameters that are published, and names what it does not know."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from models.architectures import FAMILIES, read_spec, turbosparse
from models.architectures.predictors import with_predictors
from models.checkpoint.safetensors import open_safetensors
from models.errors import BadCheckpoint, BadConfig, MissingTensor
from models.spec import FfnRule, ModelSpec, Predictors, Routing
from tests.checkpoints import edit_config
from tests.conftest import CheckpointOf
from tests.families import ALL, BY_HAND, make_variant

Config = dict[str, Any]

MISTRAL: Config = {
    "architectures": ["MistralForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.34.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}
MIXTRAL: Config = MISTRAL | {
    "architectures": ["MixtralForCausalLM"],
    "attention_dropout": 0.0,
    "model_type": "mixtral",
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
    "output_router_logits": False,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.02,
    "sliding_window": None,
}
TURBOSPARSE_MIXTRAL: Config = MIXTRAL | {
    "architectures": ["TurboSparseMixtralForCausalLM"],
    "hidden_act": "relu",
    "model_type": "turbosparsemixtral",
    "vocab_size": 57024,
}
OPT_125M: Config = {
    "_name_or_path": "facebook/opt-125m",
    "activation_dropout": 0.0,
    "activation_function": "relu",
    "architectures": ["OPTForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "do_layer_norm_before": True,
    "dropout": 0.1,
    "eos_token_id": 2,
    "ffn_dim": 3072,
    "hidden_size": 768,
    "init_std": 0.02,
    "layerdrop": 0.0,
    "max_position_embeddings": 2048,
    "model_type": "opt",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "prefix": "</s>",
    "torch_dtype": "float16",
    "transformers_version": "4.21.0.dev0",
    "use_cache": True,
    "vocab_size": 50272,
    "word_embed_proj_dim": 768,
}
OPT_350M: Config = OPT_125M | {
    "do_layer_norm_before": False,
    "ffn_dim": 4096,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "word_embed_proj_dim": 512,
}
FALCON_7B: Config = {
    "alibi": False,
    "apply_residual_connection_post_layernorm": False,
    "architectures": ["FalconForCausalLM"],
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_falcon.FalconConfig"},
    "bias": False,
    "bos_token_id": 11,
    "eos_token_id": 11,
    "hidden_dropout": 0.0,
    "hidden_size": 4544,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "falcon",
    "multi_query": True,
    "new_decoder_architecture": False,
    "num_attention_heads": 71,
    "num_hidden_layers": 32,
    "parallel_attn": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.27.4",
    "use_cache": True,
    "vocab_size": 65024,
}
REFINED_WEB_40B: Config = {
    "alibi": False,
    "apply_residual_connection_post_layernorm": False,
    "architectures": ["RWForCausalLM"],
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_RW.RWConfig"},
    "bias": False,
    "bos_token_id": 11,
    "eos_token_id": 11,
    "hidden_dropout": 0.0,
    "hidden_size": 8192,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "RefinedWeb",
    "n_head": 128,
    "n_head_kv": 8,
    "n_layer": 60,
    "parallel_attn": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.27.4",
    "use_cache": True,
    "vocab_size": 65024,
}
QWEN25: Config = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3: Config = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_MOE: Config = QWEN3 | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "decoder_sparse_step": 1,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_window_layers": 48,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "tie_word_embeddings": False,
}
MINICPM_S: Config = {
    "architectures": ["MiniCPMForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_minicpm.MiniCPMConfig"},
    "bos_token_id": 1,
    "dim_model_base": 256,
    "eos_token_id": 2,
    "hidden_act": "fatrelu",
    "hidden_act_param": 0.03,
    "hidden_size": 1536,
    "initializer_range": 0.1,
    "intermediate_size": 3840,
    "max_position_embeddings": 4096,
    "num_attention_heads": 24,
    "num_hidden_layers": 52,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "scale_depth": 1.4,
    "scale_emb": 12,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.36.0",
    "use_cache": True,
    "vocab_size": 73440,
}
SMALLTHINKER: Config = {
    "architectures": ["SmallThinkerForCausalLM"],
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_smallthinker.SmallThinkerConfig"},
    "bos_token_id": 151643,
    "eos_token_id": [151643, 151645],
    "head_dim": 128,
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "max_length": None,
    "max_position_embeddings": 32768,
    "model_name": "smallthinker_4b_instruct",
    "model_type": "smallthinker",
    "moe_ffn_hidden_size": 768,
    "moe_num_active_primary_experts": 4,
    "moe_num_primary_experts": 32,
    "norm_topk_prob": True,
    "num_attention_heads": 12,
    "num_hidden_layers": 32,
    "num_key_value_heads": 2,
    "output_router_logits": False,
    "repetition_penalty": None,
    "rms_norm_eps": 1e-06,
    "rope_layout": [1] * 32,
    "rope_scaling": None,
    "rope_theta": 1.5e6,
    "sliding_window_layout": [0] * 32,
    "sliding_window_size": 4096,
    "tie_word_embeddings": True,
    "tokenizer_class": "Qwen2Tokenizer",
    "vocab_size": 151936,
}
# Published counts. OPT's without the two rows before its first position; Falcon-7B's without the copy of the embedding in its files.
PARAMETERS: dict[str, tuple[Config, int]] = {
    "Mistral-7B": (MISTRAL, 7_241_732_096),
    "Mixtral-8x7B": (MIXTRAL, 46_702_792_704),
    "OPT-125m": (OPT_125M, 125_239_296 - 2 * 768),
    "OPT-350m": (OPT_350M, 331_196_416 - 2 * 1024),
    "Falcon-7B": (FALCON_7B, 7_217_189_760 - 65024 * 4544),
    "Qwen2.5-0.5B": (QWEN25, 494_032_768),
    "Qwen3-0.6B": (QWEN3, 596_049_920),
    "Qwen3-30B-A3B": (QWEN3_MOE, 30_532_122_624),
}
RANKS = (896,) * 2 + (1024,) * 11 + (1088,) + (1024,) * 13 + (1088,) * 4 + (1344,)


def spec_of(folder: Path, config: Config) -> ModelSpec:
    (folder / "config.json").write_text(json.dumps(config))
    return read_spec(folder)


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_configs_have_their_published_parameters(name: str, tmp_path: Path) -> None:
    config, parameters = PARAMETERS[name]
    assert spec_of(tmp_path, config).parameters == parameters


def test_turbosparse_mixtral_has_the_bytes_of_its_index(tmp_path: Path) -> None:
    """Its index says total_size 103,592,501,248, in bf16: predictors included, whose ranks only the tensors tell."""
    shapes = {turbosparse.FIRST.format(layer=layer): (rank, 4096) for layer, rank in enumerate(RANKS)}
    spec = turbosparse.refined(spec_of(tmp_path, TURBOSPARSE_MIXTRAL), shapes)
    assert spec.parameters * 2 == 103_592_501_248
    assert spec.masked
    assert spec.rule == FfnRule("gated_both", "relu")
    assert (spec.rank(0), spec.rank(13), spec.rank(31)) == (896, 1088, 1344)


def test_the_old_falcon_is_the_new_one(tmp_path: Path) -> None:
    old = spec_of(tmp_path, REFINED_WEB_40B)
    assert (old.n_layers, old.n_heads, old.n_kv_heads, old.head_dim) == (60, 128, 8, 64)
    assert (old.residual, old.shared_norm, old.rule) == ("parallel", False, FfnRule("plain", "gelu"))
    renamed = {"n_head": "num_attention_heads", "n_head_kv": "num_kv_heads", "n_layer": "num_hidden_layers"}
    new = {renamed.get(key, key): value for key, value in REFINED_WEB_40B.items()}
    new |= {"model_type": "falcon", "architectures": ["FalconForCausalLM"], "new_decoder_architecture": True}
    assert spec_of(tmp_path, new) == old


def test_falcon_7b_has_one_norm_and_one_key_for_both_branches(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, FALCON_7B)
    assert (spec.n_kv_heads, spec.residual, spec.shared_norm) == (1, "parallel", True)


def test_minicpm_s_has_three_scales_and_needs_no_model_type(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, MINICPM_S)
    assert (spec.family, spec.embedding_scale, spec.logit_scale) == ("minicpm", 12.0, 256 / 1536)
    assert spec.residual_scale == pytest.approx(1.4 / 52**0.5)
    assert (spec.rule, spec.tied_head) == (FfnRule("gated", "fatrelu", 0.03), True)
    assert spec_of(tmp_path, MINICPM_S | {"model_type": "minicpm"}) == spec
    with pytest.raises(BadConfig, match="model_type: is missing"):
        spec_of(tmp_path, {key: value for key, value in MINICPM_S.items() if key != "scale_depth"})


def test_smallthinker_routes_by_the_layers_input(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, SMALLTHINKER)
    assert spec.routing == Routing(score="sigmoid", normalised=True, before_attention=True)
    assert (spec.n_experts, spec.experts_per_token, spec.n_neurons, spec.turned, spec.windowed) == (32, 4, 768, (), ())
    mixed = SMALLTHINKER | {"rope_layout": [0, 1, 1, 1] * 8, "sliding_window_layout": [0, 1, 1, 1] * 8}
    spec = spec_of(tmp_path, mixed)
    assert [spec.turns(layer) for layer in (0, 1, 4)] == [False, True, False]
    assert [spec.window(layer) for layer in (0, 1, 4)] == [None, 4096, None]


def test_a_window_in_use_holds_for_qwens_later_layers(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, QWEN25 | {"use_sliding_window": True, "max_window_layers": 20})
    assert [spec.window(layer) for layer in (19, 20)] == [None, 32768]
    kinds = ["sliding_attention"] + ["full_attention"] * 23
    spec = spec_of(tmp_path, QWEN25 | {"use_sliding_window": True, "layer_types": kinds})
    assert [spec.window(layer) for layer in (0, 1)] == [32768, None]


@pytest.mark.parametrize(
    ("config", "changes", "key"),
    [
        (OPT_125M, {"activation_function": "gelu_new"}, "activation_function"),
        (OPT_125M, {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine"),
        (OPT_125M, {"_remove_final_layer_norm": True}, "_remove_final_layer_norm"),
        (OPT_125M, {"num_attention_heads": 7}, "num_attention_heads"),
        (OPT_125M, {"num_attention_heads": 256}, "num_attention_heads"),
        (FALCON_7B, {"alibi": True}, "alibi"),
        (FALCON_7B, {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn"),
        (FALCON_7B, {"new_decoder_architecture": True, "parallel_attn": False}, "parallel_attn"),
        (FALCON_7B, {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 3}, "num_ln_in_parallel_attn"),
        (FALCON_7B, {"activation": "swish"}, "activation"),
        (FALCON_7B, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type"),
        (REFINED_WEB_40B, {"n_head_kv": 7}, "num_kv_heads"),
        (MIXTRAL, {"num_experts_per_tok": 9}, "num_experts_per_tok"),
        (MIXTRAL, {"num_local_experts": 1}, "num_local_experts"),
        (MIXTRAL, {"num_local_experts": 10**9}, "num_local_experts"),
        (MIXTRAL, {"mlp_bias": True}, "mlp_bias"),
        (MIXTRAL, {"router_jitter_noise": 0.0, "shared_expert_intermediate_size": 64}, "shared_expert_intermediate_size"),
        (TURBOSPARSE_MIXTRAL, {"hidden_act": "silu"}, "hidden_act"),
        (TURBOSPARSE_MIXTRAL, {"model_type": "turbosparse"}, "model_type"),
        (QWEN25, {"use_sliding_window": True, "layer_types": ["chunked_attention"] * 24}, "layer_types"),
        (QWEN25, {"layer_types": ["sliding_attention"] * 24}, "layer_types"),
        (QWEN25, {"layer_types": ["full_attention"] * 23}, "layer_types"),
        (QWEN25, {"use_sliding_window": True, "max_window_layers": -1}, "max_window_layers"),
        (QWEN25, {"use_sliding_window": True, "num_hidden_layers": 2**30}, "num_hidden_layers"),
        (QWEN25, {"use_mrope": True}, "use_mrope"),
        (QWEN3_MOE, {"mlp_only_layers": [0]}, "mlp_only_layers"),
        (QWEN3_MOE, {"decoder_sparse_step": 2}, "decoder_sparse_step"),
        (QWEN3_MOE, {"use_sliding_window": True}, "use_sliding_window"),
        (MINICPM_S, {"num_experts": 8}, "num_experts"),
        (MINICPM_S, {"scale_emb": 0}, "scale_emb"),
        (MINICPM_S, {"rope_scaling": {"type": "longrope", "factor": 2.0}}, "rope_type"),
        (SMALLTHINKER, {"moe_layer_layout": [0] + [1] * 31}, "moe_layer_layout"),
        (SMALLTHINKER, {"rope_layout": [1] * 31}, "rope_layout"),
        (SMALLTHINKER, {"rope_layout": [2] * 32}, "rope_layout"),
        (SMALLTHINKER, {"sliding_window_layout": [1] * 32, "sliding_window_size": None}, "sliding_window_size"),
        (SMALLTHINKER, {"norm_topk_prob": False}, "norm_topk_prob"),
        (SMALLTHINKER, {"moe_enable_secondary_experts": True}, "moe_enable_secondary_experts"),
        (SMALLTHINKER, {"moe_shared_primary_experts": 2}, "moe_shared_primary_experts"),
        (MISTRAL, {"architectures": ["SparseLlamaForCausalLM"]}, "architectures"),
        (MISTRAL, {"layer_types": ["full_attention"] * 32}, "layer_types"),
        # A class of the same name as ProSparse's, of another kind of model.
        (MISTRAL, {"architectures": ["SparseLlamaForCausalLM"], "model_type": "llama_sparse_relu", "sliding_window": None}, "model_type"),
    ],
)
def test_a_feature_we_do_not_have_is_refused_by_name(config: Config, changes: Config, key: str, tmp_path: Path) -> None:
    spec_of(tmp_path, config)
    with pytest.raises(BadConfig) as caught:
        spec_of(tmp_path, config | changes)
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


def test_no_family_answers_to_the_name_and_class_of_another() -> None:
    pairs = [(model_type, name) for family in FAMILIES for model_type in family.model_types for name in family.classes]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("name", ALL)
def test_a_tensor_too_many_or_too_few_is_named(name: str, checkpoint_of: CheckpointOf) -> None:
    """Every tensor of the spec is one of the file's, and the other way round: `open` would have said otherwise."""
    checkpoint = open_safetensors(checkpoint_of(name))
    broken = replace(checkpoint.spec, n_layers=checkpoint.spec.n_layers + 1, turned=(), windowed=(), predictors=None)
    with pytest.raises((MissingTensor, BadCheckpoint)):
        replace(checkpoint, spec=broken)


def test_a_mask_without_its_tensors_is_missed_by_name(tmp_path: Path) -> None:
    folder = make_variant(tmp_path / "mixtral", "mixtral_relu")
    edit_config(folder, model_type="turbosparsemixtral", architectures=["TurboSparseMixtralForCausalLM"])
    with pytest.raises(MissingTensor, match=r"experts\.0\.predictor\.fc1\.weight"):
        open_safetensors(folder)


def test_a_mixtral_with_predictors_but_without_relu_is_no_early_turbosparse(tmp_path: Path) -> None:
    folder = make_variant(tmp_path / "mixtral", "supersparse_mixtral")
    assert open_safetensors(folder).spec.masked
    edit_config(folder, hidden_act="silu")
    with pytest.raises(BadCheckpoint, match=r"predictor\.fc1\.weight' is no part of a 'mixtral' model"):
        open_safetensors(folder)


def test_turbosparse_mistral_brings_predictors_that_mask_nothing(tmp_path: Path) -> None:
    spec = open_safetensors(make_variant(tmp_path / "turbo", "turbosparse_mistral")).spec
    assert spec.predictors == Predictors((32, 64), masks=False)
    assert not spec.masked


def test_a_config_of_thousands_of_millions_of_layers_takes_no_memory(tmp_path: Path) -> None:
    folder = make_variant(tmp_path / "turbo", "turbosparse_mixtral")
    edit_config(folder, num_hidden_layers=2**31 - 1)
    with pytest.raises(MissingTensor):
        open_safetensors(folder)
    spec = spec_of(tmp_path, TURBOSPARSE_MIXTRAL | {"num_hidden_layers": 2**31 - 1})
    assert with_predictors(spec, {"a": (1,)}, "{layer}", masks=True) is spec


@pytest.mark.parametrize(("name", "prefix"), [("opt", "model."), ("falcon_7b", "transformer.")])
def test_names_without_their_prefix_are_known_too(name: str, prefix: str, tmp_path: Path) -> None:
    """Some published files hold the inner model's names."""
    folder = make_variant(tmp_path / name, name)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    before = open_safetensors(folder).read("layers.1.q")
    save_file({key.removeprefix(prefix): tensor.clone() for key, tensor in tensors.items()}, path)
    assert (open_safetensors(folder).read("layers.1.q") == before).all()


def test_every_family_by_hand_says_what_it_is() -> None:
    assert all({"model_type", "architectures"} <= config.keys() for config, _shapes in BY_HAND.values())
