"""OPT: layer norms, biases, a plain FFN, learned positions. One size (350m) has its norms after, and a narrow embedding."""

from models.architectures.config import Config
from models.architectures.family import Family, Names, Part
from models.architectures.llama import read_bos
from models.errors import BadConfig
from models.spec import Activation, FfnRule, ModelSpec

OFFSET = 2  # rows of the table of positions before the first one's
ACTIVATIONS: dict[str, Activation] = {"relu": "relu", "gelu": "gelu"}


def all_positions(spec: ModelSpec) -> list[range]:
    return [range(OFFSET, OFFSET + spec.context)]


NAMES: Names = {
    "embed": "model.decoder.embed_tokens.weight",
    "head": "lm_head.weight",
    "positions": Part("model.decoder.embed_positions.weight", all_positions, lambda spec: spec.context + OFFSET),
    "project_in": "model.decoder.project_in.weight",
    "project_out": "model.decoder.project_out.weight",
    "norm": "model.decoder.final_layer_norm.weight",
    "norm_bias": "model.decoder.final_layer_norm.bias",
    "layers.{layer}.attention_norm": "model.decoder.layers.{layer}.self_attn_layer_norm.weight",
    "layers.{layer}.attention_norm_bias": "model.decoder.layers.{layer}.self_attn_layer_norm.bias",
    "layers.{layer}.ffn_norm": "model.decoder.layers.{layer}.final_layer_norm.weight",
    "layers.{layer}.ffn_norm_bias": "model.decoder.layers.{layer}.final_layer_norm.bias",
    "layers.{layer}.q": "model.decoder.layers.{layer}.self_attn.q_proj.weight",
    "layers.{layer}.k": "model.decoder.layers.{layer}.self_attn.k_proj.weight",
    "layers.{layer}.v": "model.decoder.layers.{layer}.self_attn.v_proj.weight",
    "layers.{layer}.o": "model.decoder.layers.{layer}.self_attn.out_proj.weight",
    "layers.{layer}.q_bias": "model.decoder.layers.{layer}.self_attn.q_proj.bias",
    "layers.{layer}.k_bias": "model.decoder.layers.{layer}.self_attn.k_proj.bias",
    "layers.{layer}.v_bias": "model.decoder.layers.{layer}.self_attn.v_proj.bias",
    "layers.{layer}.o_bias": "model.decoder.layers.{layer}.self_attn.out_proj.bias",
    "layers.{layer}.experts.{expert}.up": "model.decoder.layers.{layer}.fc1.weight",
    "layers.{layer}.experts.{expert}.up_bias": "model.decoder.layers.{layer}.fc1.bias",
    "layers.{layer}.experts.{expert}.down": "model.decoder.layers.{layer}.fc2.weight",
    "layers.{layer}.down_bias": "model.decoder.layers.{layer}.fc2.bias",
}


def names(spec: ModelSpec) -> Names:
    return NAMES


def read_spec(config: Config) -> ModelSpec:
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    if hidden % heads or hidden // heads % 2:
        raise BadConfig(config.path, "num_attention_heads", f"{heads} heads do not share hidden_size {hidden} in pairs")
    if (act := config.text("activation_function", "relu")) not in ACTIVATIONS:
        raise BadConfig(config.path, "activation_function", f"{act!r} has not been tested; tested: {', '.join(ACTIVATIONS)}")
    config.expect("layer_norm_elementwise_affine", tested=True)
    biased, width = config.flag("enable_bias", default=True), config.count("word_embed_proj_dim", hidden)
    spec = ModelSpec(
        family=config.text("model_type"),
        n_layers=config.count("num_hidden_layers"),
        hidden=hidden,
        n_heads=heads,
        n_kv_heads=heads,
        head_dim=hidden // heads,
        n_neurons=config.count("ffn_dim"),
        vocab=config.count("vocab_size"),
        context=config.count("max_position_embeddings"),
        rule=FfnRule("plain", ACTIVATIONS[act]),
        rope=None,
        norm="layer",
        norm_eps=1e-5,
        qkv_bias=biased,
        o_bias=biased,
        ffn_bias=biased,
        tied_head=config.flag("tie_word_embeddings", default=True),
        bos=read_bos(config),
        eos=config.token_ids("eos_token_id"),
        norm_after=not config.flag("do_layer_norm_before", default=True),
        learned_positions=True,
        embedding_width=None if width == hidden else width,
    )
    config.finish()
    return spec


FAMILY = Family(("opt",), ("OPTForCausalLM",), read_spec, names, prefix="model.")
