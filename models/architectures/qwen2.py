"""Qwen2 and Qwen2.5: LLaMA with biases on q, k and v; its later layers may have a sliding window."""

from dataclasses import replace

from models.architectures import llama
from models.architectures.config import Config
from models.architectures.family import Family
from models.errors import BadConfig
from models.spec import ModelSpec

MOST_LAYERS = 1 << 16  # whose windows we list
KINDS = {"full_attention": False, "sliding_attention": True}


def with_windows(config: Config, spec: ModelSpec) -> ModelSpec:
    """`use_sliding_window` for the layers that `layer_types` names, or for those from `max_window_layers` on."""
    given, kinds = config.get("sliding_window"), config.strings("layer_types")
    first = config.get("max_window_layers", 28)
    if unknown := set(kinds) - KINDS.keys():
        raise BadConfig(config.path, "layer_types", f"{min(unknown)!r} is not one of {', '.join(KINDS)}")
    if kinds and len(kinds) != spec.n_layers:
        raise BadConfig(config.path, "layer_types", f"names {len(kinds)} layers of {spec.n_layers}")
    if not config.flag("use_sliding_window", default=False) or given is None:
        if "sliding_attention" in kinds:
            raise BadConfig(config.path, "layer_types", "has sliding_attention, but there is no sliding window in use")
        return spec
    if not isinstance(first, int) or first < 0:
        raise BadConfig(config.path, "max_window_layers", f"{first!r} is not a number of layers")
    if spec.n_layers > MOST_LAYERS:
        raise BadConfig(config.path, "num_hidden_layers", f"{spec.n_layers} is more than {MOST_LAYERS}")
    windowed = [KINDS[kind] for kind in kinds] or [layer >= first for layer in range(spec.n_layers)]
    return replace(spec, sliding_window=config.count("sliding_window"), windowed=tuple(windowed)) if any(windowed) else spec


def read_spec(config: Config) -> ModelSpec:
    config.expect("attention_bias", tested=True)
    spec = replace(llama.read_llama(config), qkv_bias=True, o_bias=False)
    spec = with_windows(config, spec)
    config.finish()
    return spec


FAMILY = Family(("qwen2",), ("Qwen2ForCausalLM",), read_spec, llama.names, llama.IGNORED)
