"""Falcon: layer norms, a plain FFN beside attention, q, k and v in one matrix, group by group: a group's queries, its key, its value.

The first style (7B) has one group and one norm for both branches; the second (40B, 180B) several groups and two norms. Files
from before it came to transformers call themselves RefinedWeb.
"""

from collections.abc import Callable

from models.architectures.config import Config
from models.architectures.family import Family, Names, Part
from models.architectures.llama import read_bos
from models.architectures.rope import read_rope
from models.errors import BadConfig
from models.spec import Activation, FfnRule, ModelSpec

ACTIVATIONS: dict[str, Activation] = {"relu": "relu", "gelu": "gelu"}
OLD_40B = "RefinedWeb"


def group_rows(first: Callable[[int], int], last: Callable[[int], int]) -> Callable[[ModelSpec], list[range]]:
    """Rows of each group's heads from first(queries of a group) to last(queries of a group)."""

    def rows(spec: ModelSpec) -> list[range]:
        queries = spec.n_heads // spec.n_kv_heads
        starts = (group * (queries + 2) for group in range(spec.n_kv_heads))
        return [range((start + first(queries)) * spec.head_dim, (start + last(queries)) * spec.head_dim) for start in starts]

    return rows


def fused_height(spec: ModelSpec) -> int:
    return spec.q_width + 2 * spec.kv_width


def fused(kind: str) -> Names:
    """q, k and v in the tensor that ends with `kind`."""
    name, suffix = f"transformer.h.{{layer}}.self_attention.query_key_value.{kind}", "" if kind == "weight" else "_bias"
    return {
        f"layers.{{layer}}.q{suffix}": Part(name, group_rows(lambda n: 0, lambda n: n), fused_height),
        f"layers.{{layer}}.k{suffix}": Part(name, group_rows(lambda n: n, lambda n: n + 1), fused_height),
        f"layers.{{layer}}.v{suffix}": Part(name, group_rows(lambda n: n + 1, lambda n: n + 2), fused_height),
    }


COMMON: Names = {
    "embed": "transformer.word_embeddings.weight",
    "head": "lm_head.weight",
    "norm": "transformer.ln_f.weight",
    "norm_bias": "transformer.ln_f.bias",
    "layers.{layer}.o": "transformer.h.{layer}.self_attention.dense.weight",
    "layers.{layer}.o_bias": "transformer.h.{layer}.self_attention.dense.bias",
    "layers.{layer}.experts.{expert}.up": "transformer.h.{layer}.mlp.dense_h_to_4h.weight",
    "layers.{layer}.experts.{expert}.up_bias": "transformer.h.{layer}.mlp.dense_h_to_4h.bias",
    "layers.{layer}.experts.{expert}.down": "transformer.h.{layer}.mlp.dense_4h_to_h.weight",
    "layers.{layer}.down_bias": "transformer.h.{layer}.mlp.dense_4h_to_h.bias",
    **fused("weight"),
    **fused("bias"),
}


def norm_names(attention: str, ffn: str) -> Names:
    return {
        f"layers.{{layer}}.{ours}_norm{suffix}": f"transformer.h.{{layer}}.{theirs}.{kind}"
        for ours, theirs in (("attention", attention), ("ffn", ffn))
        for suffix, kind in (("", "weight"), ("_bias", "bias"))
    }


def names(spec: ModelSpec) -> Names:
    two = spec.residual == "parallel" and not spec.shared_norm
    return {**COMMON, **(norm_names("ln_attn", "ln_mlp") if two else norm_names("input_layernorm", "post_attention_layernorm"))}


def count(config: Config, key: str, old: str, default: int | None = None) -> int:
    """The number under `key`, or under the name it had in RefinedWeb's files."""
    return config.count(old) if config.get(key) is None and config.get(old) is not None else config.count(key, default)


def read_spec(config: Config) -> ModelSpec:
    hidden, heads = config.count("hidden_size"), count(config, "num_attention_heads", "n_head")
    if hidden % heads or hidden // heads % 2:
        raise BadConfig(config.path, "num_attention_heads", f"{heads} heads do not share hidden_size {hidden} in pairs")
    new = config.flag("new_decoder_architecture", default=config.text("model_type") == OLD_40B)
    parallel, norms = read_branches(config, is_new=new)
    kv_heads = count(config, "num_kv_heads", "n_head_kv", heads)
    if not new:
        kv_heads = 1 if config.flag("multi_query", default=True) else heads
    config.get("multi_query")
    if heads % kv_heads:
        raise BadConfig(config.path, "num_kv_heads", f"{kv_heads} does not divide the {heads} heads")
    if (act := config.text("activation", "gelu")) not in ACTIVATIONS:
        raise BadConfig(config.path, "activation", f"{act!r} has not been tested; tested: {', '.join(ACTIVATIONS)}")
    config.expect("alibi", tested=False)
    context, biased = config.count("max_position_embeddings", 2048), config.flag("bias", default=False)
    spec = ModelSpec(
        family="falcon",
        n_layers=count(config, "num_hidden_layers", "n_layer"),
        hidden=hidden,
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=hidden // heads,
        n_neurons=config.count("ffn_hidden_size", 4 * hidden),
        vocab=config.count("vocab_size"),
        context=context,
        rule=FfnRule("plain", ACTIVATIONS[act]),
        rope=read_rope(config, hidden // heads, context),
        norm="layer",
        norm_eps=config.positive("layer_norm_epsilon", 1e-5),
        residual="parallel" if parallel else "sequential",
        shared_norm=parallel and norms == 1,
        qkv_bias=biased,
        o_bias=biased,
        ffn_bias=biased,
        tied_head=config.flag("tie_word_embeddings", default=True),
        bos=read_bos(config),
        eos=config.token_ids("eos_token_id"),
    )
    config.finish()
    return spec


def read_branches(config: Config, *, is_new: bool) -> tuple[bool, int]:
    """Whether FFN and attention stand side by side, and how many norms lead to them."""
    if is_new:
        config.expect("parallel_attn", tested=True)
        norms = config.count("num_ln_in_parallel_attn", 2)
        if norms > 2:
            raise BadConfig(config.path, "num_ln_in_parallel_attn", f"{norms} is neither 1 nor 2")
        return True, norms
    config.expect("num_ln_in_parallel_attn", 1)
    return config.flag("parallel_attn", default=True), 1


FAMILY = Family(("falcon", OLD_40B, "RefinedWebModel"), ("FalconForCausalLM", "RWForCausalLM"), read_spec, names, prefix="transformer.")
