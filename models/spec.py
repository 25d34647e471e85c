"""What a model is, in numbers: the one description every other part reads. Knows no files, no tensors, no devices."""

import math
from dataclasses import dataclass
from typing import Literal

Activation = Literal["relu", "fatrelu", "relu2", "silu", "gelu"]
FfnKind = Literal["plain", "gated", "gated_both"]


@dataclass(frozen=True, slots=True)
class FfnRule:
    """How a neuron turns its two dot products into one number.

    plain: h = act(up);  gated: h = act(gate)·up;  gated_both: h = act(gate)·act(up) (dReLU).
    `threshold` is FATReLU's: z if z >= threshold else 0.
    """

    kind: FfnKind
    activation: Activation
    threshold: float = 0.0

    @property
    def is_sparse(self) -> bool:
        """True when the activation is exactly zero over a range, so that exact gate-first selection skips something."""
        return self.activation in ("relu", "fatrelu", "relu2")


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions: base `theta` over `dim` of each head, with the scaling that stretches them.

    linear: angles ÷ factor. llama3: low frequencies ÷ factor, a smooth step between (Llama 3.1).
    yarn: NTK by parts with an attention factor (Peng et al. 2023, arXiv 2309.00071).
    """

    theta: float
    dim: int
    scaling: Literal["none", "linear", "llama3", "yarn"] = "none"
    factor: float = 1.0
    original_context: int = 0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    truncate: bool = True


@dataclass(frozen=True, slots=True)
class ModelSpec:
    family: str
    n_layers: int
    hidden: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_neurons: int  # of one bank
    vocab: int
    context: int  # tokens the model was made for
    rule: FfnRule
    rope: Rope | None
    n_experts: int = 1
    experts_per_token: int = 1
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
    residual: Literal["sequential", "parallel"] = "sequential"
    qkv_bias: bool = False
    o_bias: bool = False
    ffn_bias: bool = False
    sliding_window: int | None = None  # a token sees itself and window - 1 before it
    tied_head: bool = False
    bos: int | None = None
    eos: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert min(self.n_layers, self.hidden, self.n_neurons, self.vocab, self.context, self.head_dim) > 0
        assert min(self.n_heads, self.n_kv_heads, self.n_experts, self.experts_per_token) > 0
        assert self.n_heads % self.n_kv_heads == 0, "grouped-query attention needs heads divisible by kv heads"

    @property
    def n_banks(self) -> int:
        return self.n_layers * self.n_experts

    @property
    def rows_per_neuron(self) -> int:
        """gate, up and down, or up and down."""
        return 2 if self.rule.kind == "plain" else 3

    @property
    def q_width(self) -> int:
        return self.n_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.n_kv_heads * self.head_dim

    @property
    def attention_scale(self) -> float:
        return 1.0 / math.sqrt(self.head_dim)

    @property
    def neuron_parameters(self) -> int:
        """Weights in all FFN neurons, biases left out."""
        return self.n_banks * self.n_neurons * self.rows_per_neuron * self.hidden

    @property
    def attention_parameters(self) -> int:
        return self.n_layers * self.hidden * (2 * self.q_width + 2 * self.kv_width)

    @property
    def embedding_parameters(self) -> int:
        """Embedding and head together; one matrix when they are tied."""
        return self.vocab * self.hidden * (1 if self.tied_head else 2)

    @property
    def parameters(self) -> int:
        norms = (2 * self.n_layers + 1) * self.hidden
        routers = self.n_layers * self.n_experts * self.hidden if self.n_experts > 1 else 0
        biases = self.n_layers * (
            self.qkv_bias * (self.q_width + 2 * self.kv_width)
            + self.o_bias * self.hidden
            + self.ffn_bias * self.n_experts * ((self.rows_per_neuron - 1) * self.n_neurons + self.hidden)
        )
        return self.neuron_parameters + self.attention_parameters + self.embedding_parameters + norms + routers + biases

    def kv_bytes_per_token(self, element_bytes: int = 2) -> int:
        """Bytes of keys and values that one token leaves in the cache, over all layers (bf16 unless told otherwise)."""
        return 2 * self.n_layers * self.kv_width * element_bytes
