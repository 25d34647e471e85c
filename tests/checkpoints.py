"""Makers of small random checkpoints, as people have them on disk: config.json, safetensors, tokenizer.json.

Weights are seeded and scaled so that logits are of order one and about half of the gates pass. What transformers knows
is written by transformers; FATReLU and Bamboo, which it does not know, are written by hand under the same tensor names.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

Config = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

SHAPE: Config = {
    "vocab_size": 290,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 288,
    "eos_token_id": 289,
    "hidden_act": "relu",
}
LLAMA3_ROPE: Config = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN_ROPE: Config = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}

LLAMA_VARIANTS: Mapping[str, Config] = {
    "relu": {},
    "silu": {"hidden_act": "silu"},
    "tied": {"tie_word_embeddings": True},
    "attention_bias": {"attention_bias": True},
    "mlp_bias": {"mlp_bias": True},
    "one_kv_head": {"num_key_value_heads": 1},
    "every_head_its_own": {"num_key_value_heads": 4},
    "wide_heads": {"head_dim": 32},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}},
    "llama3": {"rope_parameters": LLAMA3_ROPE},
    "yarn": {"rope_parameters": YARN_ROPE},
    "yarn_untruncated": {"rope_parameters": YARN_ROPE | {"truncate": False, "beta_fast": 8.0, "beta_slow": 2.0}},
    "yarn_attention_factor": {"rope_parameters": YARN_ROPE | {"attention_factor": 1.3}},
    "everything": {
        "hidden_act": "silu",
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
        "head_dim": 32,
        "rope_parameters": LLAMA3_ROPE,
    },
}
OWN_VARIANTS: Mapping[str, Config] = {
    "sparsellama": {"model_type": "sparsellama", "hidden_act": "fatrelu", "hidden_act_param": 0.01},
    "fatrelu_wide": {"model_type": "llama", "hidden_act": "fatrelu", "hidden_act_param": 0.4},
    "bamboo": {"model_type": "bamboo", "architectures": ["BambooForCausalLM"], "sliding_window": 4096},
    "bamboo_window": {"model_type": "bamboo", "architectures": ["BambooForCausalLM"], "sliding_window": 8},
}


def make_llama(folder: Path, changes: Config | None = None, *, seed: int = 0, shard_bytes: int | None = None) -> Path:
    """A float32 LLaMA checkpoint written by transformers, sharded when `shard_bytes` is given."""
    return _write_pretrained(LlamaForCausalLM(LlamaConfig(**SHAPE | (changes or {}))), folder, seed, shard_bytes)


def make_mistral(folder: Path, changes: Config | None = None, *, seed: int = 0) -> Path:
    return _write_pretrained(MistralForCausalLM(MistralConfig(**SHAPE | (changes or {}))), folder, seed, None)


def make_by_hand(folder: Path, changes: Config | None = None, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """A checkpoint of a family that transformers does not know, under LLaMA's tensor names."""
    config = {"rope_theta": 10000.0, "tie_word_embeddings": False} | SHAPE | (changes or {})
    return write_by_hand(folder, config, llama_shapes(config), seed=seed, dtype=dtype)


def write_by_hand(folder: Path, config: Config, shapes: Shapes, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """A checkpoint of random tensors of these names and shapes."""
    tensors = random_tensors(shapes, seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder)
    return folder


def edit_config(folder: Path, *, drop: tuple[str, ...] = (), **changes: object) -> None:
    """Rewrites config.json with some keys changed and some left out."""
    path = folder / "config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key not in drop}
    path.write_text(json.dumps(config | changes, indent=2))


def use_old_rope_style(folder: Path) -> None:
    """Moves `rope_parameters` to where files written before transformers 5 have it: `rope_theta` and `rope_scaling`."""
    parameters = json.loads((folder / "config.json").read_text())["rope_parameters"]
    theta = parameters.pop("rope_theta")
    scaling = None if parameters["rope_type"] == "default" else parameters
    edit_config(folder, drop=("rope_parameters",), rope_theta=theta, rope_scaling=scaling)


def llama_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes of a LLaMA checkpoint without biases."""
    hidden, neurons, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    q, kv = heads * head_dim, config["num_key_value_heads"] * head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        for name, shape in _layer_shapes(hidden, neurons, q, kv).items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return shapes


def _layer_shapes(hidden: int, neurons: int, q: int, kv: int) -> dict[str, tuple[int, ...]]:
    return {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (q, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q),
        "mlp.gate_proj": (neurons, hidden),
        "mlp.up_proj": (neurons, hidden),
        "mlp.down_proj": (hidden, neurons),
    }


def random_tensors(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Gains about one, biases about a half, embeddings a quarter, matrices that keep variance."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _random_tensor(name, shape, generator) for name, shape in sorted(shapes.items())}


def _random_tensor(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if name.endswith(".bias"):
        return 0.5 * noise
    if len(shape) == 1:
        return 1.0 + 0.2 * noise
    return 0.25 * noise if "embed" in name else noise / shape[-1] ** 0.5


def make_pretrained(folder: Path, kind: type[PreTrainedModel], config: Config, *, seed: int = 0) -> Path:
    """A float32 checkpoint of any model of transformers, written by it."""
    assert kind.config_class is not None
    return _write_pretrained(kind(kind.config_class(**config)), folder, seed, None)


def _write_pretrained(model: PreTrainedModel, folder: Path, seed: int, shard_bytes: int | None) -> Path:
    parameters = dict(model.named_parameters())
    tensors = random_tensors({name: tuple(parameter.shape) for name, parameter in parameters.items()}, seed)
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
    model.save_pretrained(folder, max_shard_size=shard_bytes or "5GB")
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE of 290 pieces: 256 bytes, two marks, and the commonest pairs of one sentence."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=SHAPE["vocab_size"] - 2, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["the neurons that fire together are kept together on the card, the others there"] * 3, trainer)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
