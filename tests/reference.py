"""A slow LLaMA decoder in NumPy float64, written from the papers' equations: what the transformer must agree with.

It reads a checkpoint folder by itself (JSON and `safetensors.numpy`), sees a whole prompt at once, keeps no cache, and
knows nothing of the project's own code. Families: llama, sparsellama (FATReLU), mistral, bamboo (ReLU on gate and up),
minicpm (three scale factors), turbosparsemixtral (experts, masked by predictors), smallthinker (experts, early router).

    RMSNorm    Zhang & Sennrich 2019, arXiv 1910.07467        RoPE       Su et al. 2021, arXiv 2104.09864
    GQA        Ainslie et al. 2023, arXiv 2305.13245          SwiGLU     Shazeer 2020, arXiv 2002.05202
    YaRN       Peng et al. 2023, arXiv 2309.00071             FATReLU    Song et al. 2024, arXiv 2402.13516
    dReLU      Song et al. 2024, arXiv 2406.05955             sliding    Jiang et al. 2023, arXiv 2310.06825
    experts    Jiang et al. 2024, arXiv 2401.04088            scales     Hu et al. 2024, arXiv 2404.06395 (MiniCPM)
    predictors Liu et al. 2023, arXiv 2310.17157              early router, no rotation in some layers: Song et al. 2025, arXiv 2507.20984
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Array = NDArray[np.float64]
Config = dict[str, Any]
Weights = dict[str, Array]
Seen = Callable[[Array], Array]  # what a stored matrix sees of the vector it meets: formats may round it


@dataclass(frozen=True)
class Model:
    config: Config
    weights: Weights
    seen: Seen

    def linear(self, name: str, x: Array) -> Array:
        """x Wᵀ, + b where the checkpoint has one."""
        return x @ self.weights[name + ".weight"].T + self.weights.get(name + ".bias", 0.0)


def reference_logits(folder: Path, tokens: Sequence[int], seen: Seen = lambda x: x) -> Array:
    """Logits float64 [T, V] of a prompt of T tokens, positions 0 … T-1."""
    model = Model(read_config(folder), read_weights(folder), seen)
    x = model.weights["model.embed_tokens.weight"][list(tokens)] * model.config.get("scale_emb", 1.0)  # [T, H]
    for layer in range(model.config["num_hidden_layers"]):
        x = decoder_layer(model, layer, x)
    x = rms_norm(model, "model.norm", x)
    if "dim_model_base" in model.config:
        x = x / (model.config["hidden_size"] / model.config["dim_model_base"])
    x = seen(x)
    return model.linear("model.embed_tokens" if model.config.get("tie_word_embeddings") else "lm_head", x)


def read_config(folder: Path) -> Config:
    config: Config = json.loads((folder / "config.json").read_text())
    return config


def read_weights(folder: Path) -> Weights:
    """Every tensor of every *.safetensors file in the folder, as float64."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: np.asarray(tensor, np.float64) for file in files for name, tensor in load_file(file).items()}


def decoder_layer(model: Model, layer: int, x: Array) -> Array:
    """x + attention(norm x), then + ffn(norm of that); MiniCPM scales both by scale_depth / √layers."""
    prefix, scale, given = f"model.layers.{layer}.", 1.0, x
    if "scale_depth" in model.config:
        scale = model.config["scale_depth"] / math.sqrt(model.config["num_hidden_layers"])
    x = x + scale * attention(model, layer, rms_norm(model, prefix + "input_layernorm", x))
    normed = rms_norm(model, prefix + "post_attention_layernorm", x)
    if prefix + "block_sparse_moe.primary_router.weight" in model.weights:
        return x + early_routed_experts(model, prefix + "block_sparse_moe.", given, normed)
    if prefix + "block_sparse_moe.gate.weight" in model.weights:
        return x + masked_experts(model, prefix + "block_sparse_moe.", normed)
    return x + scale * ffn(model, prefix + "mlp.", normed)


def rms_norm(model: Model, name: str, x: Array) -> Array:
    """x / sqrt(mean x² + eps) · gain."""
    mean_square: Array = (x**2).mean(axis=-1, keepdims=True)
    root: Array = np.sqrt(mean_square + model.config.get("rms_norm_eps", 1e-6))
    return x / root * model.weights[name + ".weight"]


# ---------------------------------------------------------------- attention


def attention(model: Model, layer: int, x: Array) -> Array:
    """Causal attention, each kv head shared by n_heads / n_kv_heads query heads."""
    prefix, config = f"model.layers.{layer}.self_attn.", of_layer(model.config, layer)
    n_heads = model.config["num_attention_heads"]
    n_kv_heads = model.config.get("num_key_value_heads") or n_heads
    seen = model.seen(x)
    q = split_heads(model.linear(prefix + "q_proj", seen), n_heads)
    k = split_heads(model.linear(prefix + "k_proj", seen), n_kv_heads)
    if config.get("turned", True):
        q, k = rotate(config, q), rotate(config, k)
    v = split_heads(model.linear(prefix + "v_proj", seen), n_kv_heads)
    k, v = (np.repeat(a, n_heads // n_kv_heads, axis=0) for a in (k, v))  # [n_heads, T, D]
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])  # [n_heads, T, T]
    mixed = softmax(np.where(visible(config, len(x)), scores, -np.inf)) @ v  # [n_heads, T, D]
    return model.linear(prefix + "o_proj", model.seen(mixed.transpose(1, 0, 2).reshape(len(x), -1)))


def of_layer(config: Config, layer: int) -> Config:
    """The config with what SmallThinker's layouts say of one layer: whether it turns queries and keys, whether it has the window."""
    if "rope_layout" not in config:
        return config
    window = config["sliding_window_size"] if config["sliding_window_layout"][layer] else None
    return {**config, "turned": bool(config["rope_layout"][layer]), "sliding_window": window}


def split_heads(x: Array, n: int) -> Array:
    """[T, n·D] -> [n, T, D]."""
    return x.reshape(len(x), n, -1).transpose(1, 0, 2)


def visible(config: Config, n_tokens: int) -> NDArray[np.bool_]:
    """bool [T, T]: may token i see token j? Itself and what came before, no further back than window - 1."""
    distance = np.arange(n_tokens)[:, None] - np.arange(n_tokens)[None, :]
    window: int = config.get("sliding_window") or n_tokens
    return (distance >= 0) & (distance < window)


def softmax(scores: Array) -> Array:
    powers: Array = np.exp(scores - scores.max(axis=-1, keepdims=True))
    total: Array = powers.sum(axis=-1, keepdims=True)
    return powers / total


# ---------------------------------------------------------------- rotary positions


def rotate(config: Config, x: Array) -> Array:
    """Turns each pair (x_i, x_{i + D/2}) of [n, T, D] by position · frequency_i: the halves convention of the checkpoints."""
    frequencies, magnitude = rope(config, x.shape[-1])
    angles = np.arange(x.shape[1])[:, None] * frequencies  # [T, D/2]
    cos, sin = magnitude * np.cos(angles), magnitude * np.sin(angles)
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)


def rope_parameters(config: Config) -> Config:
    """transformers 5 writes one `rope_parameters`; older files have `rope_theta` beside `rope_scaling`, whose type was once `type`."""
    found: Config = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = found.get("rope_theta", config.get("rope_theta", 10000.0))
    kind = found.get("rope_type", found.get("type", "default"))
    return {**found, "rope_theta": theta, "rope_type": kind}


def rope(config: Config, dim: int) -> tuple[Array, float]:
    """Angle per position, float64 [D/2], and the factor on cosine and sine."""
    parameters = rope_parameters(config)
    plain = parameters["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
    original = parameters.get("original_max_position_embeddings") or config["max_position_embeddings"]
    match parameters["rope_type"]:
        case "default":
            return plain, 1.0
        case "linear":
            return plain / parameters["factor"], 1.0
        case "llama3":
            return llama3_frequencies(parameters, plain, original), 1.0
        case "yarn":
            return yarn_frequencies(parameters, plain, original), yarn_magnitude(parameters)
    raise NotImplementedError(parameters["rope_type"])


def llama3_frequencies(parameters: Config, plain: Array, original: int) -> Array:
    """Waves that turn more than `high` times in the original context stay, fewer than `low` are slowed; a blend between."""
    turns = original * plain / (2 * math.pi)
    factor, low, high = (float(parameters[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    keep: Array = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return keep * plain + (1 - keep) * plain / factor


def yarn_frequencies(parameters: Config, plain: Array, original: int) -> Array:
    """NTK by parts: the ramp runs over the pair's number, between the pairs that turn beta_fast and beta_slow times."""
    dim = 2 * len(plain)

    def pair_turning(times: float) -> float:
        return dim * math.log(original / (times * 2 * math.pi)) / (2 * math.log(parameters["rope_theta"]))

    first, last = pair_turning(parameters.get("beta_fast", 32)), pair_turning(parameters.get("beta_slow", 1))
    if parameters.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    slowed: Array = np.clip((np.arange(len(plain)) - first) / max(last - first, 1e-3), 0.0, 1.0)
    return (1 - slowed) * plain + slowed * plain / float(parameters["factor"])


def yarn_magnitude(parameters: Config) -> float:
    """0.1 ln(factor) + 1, unless the config says another; with both mscales, their quotient."""
    if (given := parameters.get("attention_factor")) is not None:
        return float(given)

    def magnitude(mscale: float) -> float:
        return 0.1 * mscale * math.log(max(parameters["factor"], 1.0)) + 1.0

    above, below = parameters.get("mscale"), parameters.get("mscale_all_dim")
    return magnitude(above) / magnitude(below) if above and below else magnitude(1.0)


# ---------------------------------------------------------------- FFN


def ffn(model: Model, prefix: str, x: Array) -> Array:
    """down(act(gate x) · up x); Bamboo activates up too. Down meets the neurons' own numbers, which no format rounds."""
    act, seen = activation(model.config), model.seen(x)
    gate, up = model.linear(prefix + "gate_proj", seen), model.linear(prefix + "up_proj", seen)
    fired = act(gate) * (act(up) if model.config["model_type"] == "bamboo" else up)
    return model.linear(prefix + "down_proj", fired)


def masked_experts(model: Model, prefix: str, x: Array) -> Array:
    """TurboSparse-Mixtral: the two likeliest experts, weighted by the softmax of their logits; in each, dReLU times the mask."""
    out = np.zeros_like(x)
    for t, logits in enumerate(model.linear(prefix + "gate", x)):
        chosen = np.argsort(-logits)[: model.config["num_experts_per_tok"]]
        for expert, share in zip(chosen, softmax(logits[chosen]), strict=True):
            at, one = f"{prefix}experts.{expert}.", model.seen(x[t : t + 1])
            fired = np.maximum(model.linear(at + "w1", one), 0.0) * np.maximum(model.linear(at + "w3", one), 0.0)
            score = model.linear(at + "predictor.fc2", model.seen(np.maximum(model.linear(at + "predictor.fc1", one), 0.0)))
            mask = np.round(1.0 / (1.0 + np.exp(-score)))
            out[t] += share * model.linear(at + "w2", fired * mask)[0]
    return out


def early_routed_experts(model: Model, prefix: str, given: Array, x: Array) -> Array:
    """SmallThinker: experts with a ReLU gate, chosen by what the layer was given; weights are softmax or normalised sigmoid."""
    out = np.zeros_like(x)
    for t, logits in enumerate(model.linear(prefix + "primary_router", given)):
        chosen = np.argsort(-logits)[: model.config["moe_num_active_primary_experts"]]
        shares = 1.0 / (1.0 + np.exp(-logits[chosen]))
        if model.config.get("moe_primary_router_apply_softmax"):
            shares = softmax(logits[chosen])
        for expert, share in zip(chosen, shares / shares.sum(), strict=True):
            at, one = f"{prefix}experts.{expert}.", model.seen(x[t : t + 1])
            fired = np.maximum(model.linear(at + "gate", one), 0.0) * model.linear(at + "up", one)
            out[t] += share * model.linear(at + "down", fired)[0]
    return out


def activation(config: Config) -> Callable[[Array], Array]:
    match config["hidden_act"]:
        case "relu":
            return lambda z: np.maximum(z, 0.0)
        case "fatrelu":
            return lambda z: np.where(z >= config["hidden_act_param"], z, 0.0)
        case "silu":
            return lambda z: z / (1.0 + np.exp(-z))
    raise NotImplementedError(config["hidden_act"])


# ---------------------------------------------------------------- formats


class Int8Groups:
    """Rounds vectors to int8 per group of 32, q = round(x · 127 / max |x|). `closest` is the nearest that any came to a tie,
    in steps: below float32's rounding, a float32 program may rightly round the other way."""

    def __init__(self) -> None:
        self.closest = math.inf

    def __call__(self, x: Array) -> Array:
        groups = x.reshape(len(x), -1, 32)
        step = np.maximum(np.abs(groups).max(axis=-1, keepdims=True), 1e-300) / 127
        steps: Array = groups / step
        self.closest = min(self.closest, float(np.abs(steps - np.floor(steps) - 0.5).min()))
        rounded: Array = np.round(steps) * step
        return rounded.reshape(x.shape)
