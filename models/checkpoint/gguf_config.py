"""What a GGUF file's metadata says, as the family's config.json would say it. Torch-free; one entry an architecture.

The family's own reader then makes the spec of it, and is as strict as with a config: nothing here knows what a value means
for the forward pass. A key under the architecture's name that nobody asked for is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.architectures import check_format, family_of
from models.architectures.config import Config
from models.architectures.family import Family
from models.architectures.opt import OFFSET
from models.architectures.predictors import with_predictors
from models.bits import FormatName
from models.checkpoint.gguf import GgufFile, read_ggufs
from models.checkpoint.gguf_names import Names, falcon_names, names, opt_names
from models.checkpoint.gguf_rope import FREQUENCIES, rope_of
from models.checkpoint.gguf_tensors import View, downs_turned, paired, views_of
from models.checkpoint.headers import fingerprint
from models.errors import BadCheckpoint, MissingTensor
from models.manifest import Formats, Manifest, computed_sizes
from models.paths import settled
from models.spec import ModelSpec

Values = dict[str, Any]
POWERINFER = b"PWRI"
PREDICTOR = "blk.{layer}.fc1.weight"
IGNORED = (FREQUENCIES, "lm_head_profiler.weight")  # read otherwise; and SmallThinker's guesses at the likeliest words, which lose some
DEFAULT_FORMATS: dict[str, FormatName] = {"F32": "bf16", "F16": "bf16", "BF16": "bf16", "Q4_0": "int4"}  # of neurons; else int8


@dataclass(frozen=True, slots=True)
class Architecture:
    """`config` gives a config.json's values; `names` the tensors' names. `pairs`: q and k have the halves of a head interleaved."""

    config: Callable[["Reading"], Values]
    names: Callable[[ModelSpec], Names] = names
    pairs: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """A file whose metadata is being read, under the name of its architecture."""

    file: GgufFile
    architecture: str

    @property
    def is_powerinfer(self) -> bool:
        return self.file.magic == POWERINFER

    def key(self, name: str) -> str:
        return f"{self.architecture}.{name}"

    def count(self, name: str, default: int | None = None) -> int:
        return self.file.metadata.count(self.key(name), default)

    def number(self, name: str, default: float | None = None) -> float:
        return self.file.metadata.number(self.key(name), default)

    def has(self, tensor: str) -> bool:
        return tensor in self.file.tensors


@dataclass(frozen=True, slots=True)
class Described:
    """A file, understood: all that can be known without reading a weight."""

    file: GgufFile
    spec: ModelSpec
    family: Family
    views: Mapping[str, View]
    fingerprint: str

    @property
    def default_format(self) -> FormatName:
        """The smallest that holds the neurons as they are in the file, or nearly so."""
        kind = next((view.stored.kind for name, view in self.views.items() if ".ffn_up" in name and name.endswith(("weight", "]"))), "F32")
        return DEFAULT_FORMATS.get(kind, "int8")

    def manifest(self, name: FormatName | None) -> Manifest:
        """Bound to the weights, though none was read."""
        chosen = name or self.default_format
        check_format(self.spec, chosen)
        formats = Formats.of(chosen)
        path = settled(self.file.path)
        return Manifest(
            name=path.stem,
            source=str(path),
            fingerprint=self.fingerprint,
            assumed=False,
            spec=self.spec,
            formats=formats,
            sizes=computed_sizes(self.spec, formats),
        )


def describe(path: Path) -> Described:
    """BadCheckpoint or BadConfig names the key or the tensor that does not fit."""
    file = read_ggufs(path)
    name = file.metadata.text("general.architecture")
    if name not in ARCHITECTURES:
        raise BadCheckpoint(path, f"is of architecture {name!r}, which we do not read; those we do: {', '.join(sorted(ARCHITECTURES))}")
    own = ARCHITECTURES[name]
    config = Config(path, own.config(Reading(file, name)))
    file.metadata.finish(f"{name}.")
    family = family_of(config)
    views = views_of(file.tensors)
    spec = with_own_predictors(family.spec(config), file, views)
    if own.pairs:
        views = paired(views, spec.n_heads, spec.n_kv_heads)
    if name == "smallthinker":
        views = downs_turned(views, spec.hidden, spec.n_neurons)
    family = replace(family, names=own.names, ignored=IGNORED, prefix="")
    return Described(file, spec, family, views, fingerprint(config.digest(), file.tensors))


def with_own_predictors(spec: ModelSpec, file: GgufFile, views: Mapping[str, View]) -> ModelSpec:
    """PowerInfer's predictors read the residual before the norm, and name what scores at least its threshold, 0 unless it is told."""
    if PREDICTOR.format(layer=0) not in views:
        return spec
    found = with_predictors(spec, {name: view.shape for name, view in views.items()}, PREDICTOR, masks=False)
    if found.predictors is None:
        return found
    threshold = file.metadata.number("powerinfer.sparse_threshold", 0.0)
    return replace(found, predictors=replace(found.predictors, threshold=threshold, reads="residual"))


def common(reading: Reading) -> Values:
    """What every architecture has."""
    embed = reading.file.tensors.get("token_embd.weight")
    if embed is None:
        raise MissingTensor(reading.file.path, "token_embd.weight")
    if (told := reading.count("vocab_size", embed.shape[0])) != embed.shape[0]:
        raise BadCheckpoint(reading.file.path, f"has an embedding of {embed.shape[0]} tokens, and should have {told}")
    return {
        "vocab_size": embed.shape[0],
        "hidden_size": reading.count("embedding_length"),
        "num_hidden_layers": reading.count("block_count"),
        "num_attention_heads": reading.count("attention.head_count"),
        "max_position_embeddings": reading.count("context_length"),
        "tie_word_embeddings": not reading.has("output.weight"),
        "bos_token_id": special(reading, "bos"),
        "eos_token_id": sorted({token for name in ("eos", "eot") if (token := special(reading, name)) is not None}) or None,
    }


def special(reading: Reading, name: str) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    return reading.file.metadata.natural(key) if key in reading.file.metadata else None


def grouped(reading: Reading) -> Values:
    """Heads, their size, RMS norms and rotary positions of LLaMA's relatives."""
    values = common(reading)
    dim = max(1, values["hidden_size"] // values["num_attention_heads"])
    dim = reading.count("attention.key_length", reading.count("rope.dimension_count", dim))
    reading.file.metadata.expect(reading.key("tensor_data_layout"), "Meta AI original pth")  # interleaved, which it always is
    reading.file.metadata.expect(reading.key("attention.value_length"), dim)
    return values | {
        "head_dim": dim,
        "num_key_value_heads": reading.count("attention.head_count_kv", values["num_attention_heads"]),
        "rms_norm_eps": reading.number("attention.layer_norm_rms_epsilon"),
        "rope_parameters": rope_of(reading.file, reading.architecture, dim),
    }


def llama(reading: Reading) -> Values:
    """Also Mistral, which is written as LLaMA and without its window, and Mixtral. PowerInfer's have ReLU, llama.cpp's SiLU."""
    values = grouped(reading) | {
        "hidden_act": "relu" if reading.is_powerinfer else "silu",
        "intermediate_size": reading.count("feed_forward_length"),
    }
    experts = reading.file.metadata.natural(reading.key("expert_count"), 0)
    used = reading.file.metadata.natural(reading.key("expert_used_count"), 0)
    if experts:
        return values | {"model_type": "mixtral", "num_local_experts": experts, "num_experts_per_tok": used}
    biases = {"attention_bias": reading.has("blk.0.attn_q.bias"), "mlp_bias": reading.has("blk.0.ffn_up.bias")}
    return values | biases | {"model_type": "llama"}


def bamboo(reading: Reading) -> Values:
    """As PowerInfer writes it: in LLaMA's keys, without the window of its config."""
    return grouped(reading) | {"model_type": "bamboo", "hidden_act": "relu", "intermediate_size": reading.count("feed_forward_length")}


def qwen2(reading: Reading) -> Values:
    return grouped(reading) | {"model_type": "qwen2", "hidden_act": "silu", "intermediate_size": reading.count("feed_forward_length")}


def qwen3(reading: Reading) -> Values:
    return qwen2(reading) | {"model_type": "qwen3"}


def qwen3_moe(reading: Reading) -> Values:
    """The weights of the chosen experts are divided by their sum, as in every model that was published, unless the file says otherwise."""
    reading.file.metadata.expect(reading.key("expert_gating_func"), SOFTMAX)
    reading.file.metadata.expect(reading.key("expert_weights_scale"), 1.0, 0.0)
    return qwen3(reading) | {
        "model_type": "qwen3_moe",
        "num_experts": reading.count("expert_count"),
        "num_experts_per_tok": reading.count("expert_used_count"),
        "moe_intermediate_size": reading.count("expert_feed_forward_length"),
        "norm_topk_prob": reading.file.metadata.flag(reading.key("expert_weights_norm"), default=True),
    }


def smallthinker(reading: Reading) -> Values:
    """A window, where there is one, is not in the first of four layers, and it is these that turn nothing; there are no keys for this.

    PowerInfer's converter has a key for a softmax only, llama.cpp's for either way.
    """
    values = grouped(reading)
    layers = values["num_hidden_layers"]
    reading.file.metadata.expect(reading.key("expert_gating_func"), *GATINGS)
    window = reading.file.metadata.natural(reading.key("attention.sliding_window"), 0)
    reading.count("feed_forward_length", 1)
    layout = [int(bool(window) and layer % WINDOW_STEP != 0) for layer in range(min(layers, len(reading.file.tensors)))]
    values |= {"sliding_window_layout": layout, "sliding_window_size": window, "rope_layout": layout} if window else {}
    return values | {
        "model_type": "smallthinker",
        "moe_ffn_hidden_size": reading.count("expert_feed_forward_length"),
        "moe_num_primary_experts": reading.count("expert_count"),
        "moe_num_active_primary_experts": reading.count("expert_used_count"),
        "moe_primary_router_apply_softmax": reading.file.metadata.natural(reading.key("expert_gating_func"), SIGMOID) == SOFTMAX,
    }


def falcon(reading: Reading) -> Values:
    """Which style it is, the tensors and heads tell. PowerInfer's have ReLU, llama.cpp's GELU."""
    values = common(reading)
    heads = values["num_attention_heads"]
    kv_heads, two_norms = reading.count("attention.head_count_kv", heads), reading.has("blk.0.attn_norm_2.weight")
    reading.file.metadata.expect(reading.key("tensor_data_layout"), "jploski")
    newer = two_norms or kv_heads not in (1, heads)
    return values | {
        "model_type": "falcon",
        "new_decoder_architecture": newer,
        "num_kv_heads": kv_heads,
        "multi_query": kv_heads == 1,
        "parallel_attn": True,
        "num_ln_in_parallel_attn": (2 if two_norms else 1) if newer else None,
        "ffn_hidden_size": reading.count("feed_forward_length"),
        "layer_norm_epsilon": reading.number("attention.layer_norm_epsilon"),
        "activation": "relu" if reading.is_powerinfer else "gelu",
        "bias": reading.has("blk.0.attn_qkv.bias"),
        "rope_parameters": rope_of(reading.file, reading.architecture, max(1, values["hidden_size"] // heads)),
    }


def opt(reading: Reading) -> Values:
    """As PowerInfer writes it: without the head, which is the embedding, and with two rows before the first position's."""
    values = common(reading) | {"model_type": "opt", "ffn_dim": reading.count("feed_forward_length"), "tie_word_embeddings": True}
    reading.file.metadata.expect(reading.key("attention.head_count_kv"), values["num_attention_heads"])
    positions = reading.file.tensors.get("position_embd.weight")
    if positions is None:
        raise MissingTensor(reading.file.path, "position_embd.weight")
    return values | {"max_position_embeddings": positions.shape[0] - OFFSET, "activation_function": "relu"}


SOFTMAX, SIGMOID = 1, 2
GATINGS = (SOFTMAX, SIGMOID)
WINDOW_STEP = 4
ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(llama, pairs=True),
    "falcon": Architecture(falcon, falcon_names),
    "qwen2": Architecture(qwen2),
    "qwen3": Architecture(qwen3),
    "qwen3moe": Architecture(qwen3_moe),
    "smallthinker": Architecture(smallthinker),
    "opt": Architecture(opt, opt_names),
    "bamboo": Architecture(bamboo, pairs=True),
}
