"""What canonical tensor names are called in GGUF files. Torch-free.

Experts lie in one tensor with a dimension more, whose slices `gguf_tensors` names …[0], …[1].
"""

from collections.abc import Mapping

from models.architectures.falcon import fused_height
from models.architectures.family import Part
from models.architectures.opt import OFFSET, all_positions
from models.layout import INWARD, OUTWARD
from models.spec import ModelSpec

Names = Mapping[str, str | Part]

WHOLE = {
    "embed": "token_embd.weight",
    "positions": "position_embd.weight",
    "norm": "output_norm.weight",
    "norm_bias": "output_norm.bias",
    "head": "output.weight",
}
LAYER = {
    "attention_norm": "attn_norm.weight",
    "attention_norm_bias": "attn_norm.bias",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
    "o_bias": "attn_output.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "ffn_norm": "ffn_norm.weight",
    "ffn_norm_bias": "ffn_norm.bias",
    "down_bias": "ffn_down.bias",
    "router": "ffn_gate_inp.weight",
}
EXPERT = {
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "gate_bias": "ffn_gate.bias",
    "up_bias": "ffn_up.bias",
    INWARD: "fc1.weight",
    OUTWARD: "fc2.weight",
}
EXPERTS = {name: f"{found.removesuffix('.weight')}_exps.weight[{{expert}}]" for name, found in EXPERT.items() if found.endswith(".weight")}


def names(spec: ModelSpec) -> Names:
    """Of every architecture but Falcon."""
    return WHOLE | _in_layers(LAYER, EXPERT if spec.n_experts == 1 else EXPERTS)


def falcon_names(spec: ModelSpec) -> Names:
    """q, k and v are one tensor; a second norm, where there is one, is attention's, and the first one then the FFN's."""
    two = {"attention_norm": "attn_norm_2.weight", "attention_norm_bias": "attn_norm_2.bias"}
    own = {"ffn_norm": "attn_norm.weight", "ffn_norm_bias": "attn_norm.bias"} | ({} if spec.shared_norm else two)
    return WHOLE | _in_layers(LAYER | own, EXPERT) | _fused("weight", "") | _fused("bias", "_bias")


def _fused(kind: str, suffix: str) -> dict[str, str | Part]:
    name = f"blk.{{layer}}.attn_qkv.{kind}"
    return {
        f"layers.{{layer}}.q{suffix}": Part(name, lambda spec: [range(spec.q_width)], fused_height),
        f"layers.{{layer}}.k{suffix}": Part(name, lambda spec: [range(spec.q_width, spec.q_width + spec.kv_width)], fused_height),
        f"layers.{{layer}}.v{suffix}": Part(name, lambda spec: [range(spec.q_width + spec.kv_width, fused_height(spec))], fused_height),
    }


def opt_names(spec: ModelSpec) -> Names:
    """Two rows of the table of positions come before the first one's."""
    rows = Part(WHOLE["positions"], all_positions, lambda spec: spec.context + OFFSET)
    return WHOLE | _in_layers(LAYER, EXPERT) | {"positions": rows}


def _in_layers(layer: Mapping[str, str], expert: Mapping[str, str]) -> dict[str, str | Part]:
    own: dict[str, str | Part] = {f"layers.{{layer}}.{name}": f"blk.{{layer}}.{found}" for name, found in layer.items()}
    return own | {f"layers.{{layer}}.experts.{{expert}}.{name}": f"blk.{{layer}}.{found}" for name, found in expert.items()}
