"""LLaMA and everything that calls itself one: RMSNorm, rotary positions, grouped-query attention, gated FFN."""

from collections.abc import Callable
from dataclasses import replace

from models.architectures.config import Config
from models.architectures.family import Family, Names
from models.architectures.rope import read_rope
from models.errors import BadConfig
from models.spec import FfnRule, ModelSpec

NAMES: Names = {
    "embed": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "head": "lm_head.weight",
    "layers.{layer}.attention_norm": "model.layers.{layer}.input_layernorm.weight",
    "layers.{layer}.q": "model.layers.{layer}.self_attn.q_proj.weight",
    "layers.{layer}.k": "model.layers.{layer}.self_attn.k_proj.weight",
    "layers.{layer}.v": "model.layers.{layer}.self_attn.v_proj.weight",
    "layers.{layer}.o": "model.layers.{layer}.self_attn.o_proj.weight",
    "layers.{layer}.q_bias": "model.layers.{layer}.self_attn.q_proj.bias",
    "layers.{layer}.k_bias": "model.layers.{layer}.self_attn.k_proj.bias",
    "layers.{layer}.v_bias": "model.layers.{layer}.self_attn.v_proj.bias",
    "layers.{layer}.o_bias": "model.layers.{layer}.self_attn.o_proj.bias",
    "layers.{layer}.ffn_norm": "model.layers.{layer}.post_attention_layernorm.weight",
    "layers.{layer}.experts.{expert}.gate": "model.layers.{layer}.mlp.gate_proj.weight",
    "layers.{layer}.experts.{expert}.up": "model.layers.{layer}.mlp.up_proj.weight",
    "layers.{layer}.experts.{expert}.down": "model.layers.{layer}.mlp.down_proj.weight",
    "layers.{layer}.experts.{expert}.gate_bias": "model.layers.{layer}.mlp.gate_proj.bias",
    "layers.{layer}.experts.{expert}.up_bias": "model.layers.{layer}.mlp.up_proj.bias",
    "layers.{layer}.down_bias": "model.layers.{layer}.mlp.down_proj.bias",
}
IGNORED = ("rotary_emb.inv_freq",)


def names(spec: ModelSpec) -> Names:
    return NAMES


def activation_rule(config: Config) -> FfnRule:
    """`hidden_act`, with FATReLU's threshold in `hidden_act_param`."""
    act = config.text("hidden_act")
    if act == "fatrelu":
        threshold = config.number("hidden_act_param")
        if threshold < 0:
            raise BadConfig(config.path, "hidden_act_param", f"{threshold!r}: a threshold below zero has not been tested")
        return FfnRule("gated", "fatrelu", threshold)
    config.get("hidden_act_param")
    if act not in ("relu", "silu"):
        raise BadConfig(config.path, "hidden_act", f"{act!r} has not been tested; tested: relu, fatrelu, silu")
    return FfnRule("gated", "relu" if act == "relu" else "silu")


def read_llama(
    config: Config,
    rule: Callable[[Config], FfnRule] = activation_rule,
    *,
    neurons: str = "intermediate_size",
    theta: float = 10000.0,
    eps: float = 1e-6,
    tied: bool = False,
) -> ModelSpec:
    """All of a LLaMA config but the check for keys nobody asked for, so that relatives can read theirs first.

    `neurons` is the key that counts them; `theta`, `eps` and `tied` are what a family's files mean when they do not say.
    """
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    kv_heads, context = config.count("num_key_value_heads", heads), config.count("max_position_embeddings", 2048)
    if heads % kv_heads:
        raise BadConfig(config.path, "num_key_value_heads", f"{kv_heads} does not divide num_attention_heads {heads}")
    head_dim = config.count("head_dim", max(hidden // heads, 1))
    if head_dim % 2:
        raise BadConfig(config.path, "head_dim", f"{head_dim} is odd, and rotary positions need pairs")
    config.expect("pretraining_tp", 1)
    attention_bias = config.flag("attention_bias", default=False)
    return ModelSpec(
        family=config.text("model_type", "llama"),
        n_layers=config.count("num_hidden_layers"),
        hidden=hidden,
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=head_dim,
        n_neurons=config.count(neurons),
        vocab=config.count("vocab_size"),
        context=context,
        rule=rule(config),
        rope=read_rope(config, head_dim, context, theta),
        norm_eps=config.positive("rms_norm_eps", eps),
        qkv_bias=attention_bias,
        o_bias=attention_bias,
        ffn_bias=config.flag("mlp_bias", default=False),
        tied_head=config.flag("tie_word_embeddings", default=tied),
        bos=read_bos(config),
        eos=config.token_ids("eos_token_id"),
    )


def read_bos(config: Config) -> int | None:
    ids = config.token_ids("bos_token_id")
    return ids[0] if ids else None


def read_spec(config: Config) -> ModelSpec:
    spec = read_llama(config)
    config.finish()
    return spec


def with_window(config: Config, spec: ModelSpec) -> ModelSpec:
    """Mistral's relatives look back only so far."""
    return replace(spec, sliding_window=config.count("sliding_window") if config.get("sliding_window") is not None else None)


FAMILY = Family(("llama",), ("LlamaForCausalLM",), read_spec, names, IGNORED)
