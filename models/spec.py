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
class Routing:
    """How tokens find their experts: those with the largest logits of a linear router.

    Their weights are the softmax over all experts, or each one's sigmoid; `normalised`, they are divided by their sum.
    The router reads the normed state that the experts get, or the layer's own input `before_attention`.
    """

    score: Literal["softmax", "sigmoid"] = "softmax"
    normalised: bool = True
    before_attention: bool = False


@dataclass(frozen=True, slots=True)
class Predictors:
    """Predictors that the checkpoint brings along, one a bank.

    `ranks` [L]. `masks`: they are part of the model, and a neuron that its predictor does not name is silent. They name neurons whose
    score is at least `threshold`, or above zero where there is none. `reads`: the state that the FFN gets, or the residual before its norm.
    """

    ranks: tuple[int, ...]
    masks: bool
    threshold: float | None = None
    reads: Literal["normed", "residual"] = "normed"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What is none of a family's business is left at its default: a LLaMA of one dense expert."""

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
    routing: Routing = Routing()
    norm_after: bool = False  # a norm follows what was added to the residual, and there is no last one
    shared_norm: bool = False  # a parallel FFN reads the state that attention reads
    qk_norm: bool = False  # each head's query and key go through a norm of their own
    learned_positions: bool = False  # a table of `context` rows is added to the embedding
    embedding_width: int | None = None  # of embedding and head, where it is not `hidden`: matrices lead in and out
    embedding_scale: float = 1.0
    residual_scale: float = 1.0  # of what attention and FFN add
    logit_scale: float = 1.0
    turned: tuple[bool, ...] = ()  # [L]: layers that turn queries and keys; all of them when empty
    windowed: tuple[bool, ...] = ()  # [L]: layers that the sliding window holds for; all of them when empty
    predictors: Predictors | None = None

    def __post_init__(self) -> None:
        assert min(self.n_layers, self.hidden, self.n_neurons, self.vocab, self.context, self.head_dim) > 0
        assert min(self.n_heads, self.n_kv_heads, self.n_experts, self.experts_per_token) > 0
        assert self.n_heads % self.n_kv_heads == 0, "grouped-query attention needs heads divisible by kv heads"
        assert self.experts_per_token <= self.n_experts
        assert len(self.turned) in (0, self.n_layers)
        assert len(self.windowed) in (0, self.n_layers)
        assert self.predictors is None or len(self.predictors.ranks) == self.n_layers
        assert self.residual == "parallel" or not self.shared_norm
        assert not (self.residual == "parallel" and (self.norm_after or self.n_experts > 1))
        assert not (self.ffn_bias and (self.n_experts > 1 or self.residual_scale != 1)), "the bias of `down` is added once, unscaled"

    def turns(self, layer: int) -> bool:
        """Whether queries and keys of a layer are turned."""
        return self.rope is not None and (not self.turned or self.turned[layer])

    def window(self, layer: int) -> int | None:
        """The sliding window of a layer."""
        return self.sliding_window if not self.windowed or self.windowed[layer] else None

    def rank(self, layer: int) -> int:
        """Of the predictors of a layer; 0 when there are none."""
        return 0 if self.predictors is None else self.predictors.ranks[layer]

    @property
    def masked(self) -> bool:
        """Whether predictors are part of the model."""
        return self.predictors is not None and self.predictors.masks

    @property
    def n_banks(self) -> int:
        return self.n_layers * self.n_experts

    @property
    def rows_per_neuron(self) -> int:
        """gate, up and down, or up and down."""
        return 2 if self.rule.kind == "plain" else 3

    @property
    def width(self) -> int:
        """Of embedding and head."""
        return self.embedding_width or self.hidden

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
        return self.vocab * self.width * (1 if self.tied_head else 2)

    @property
    def router_parameters(self) -> int:
        return self.n_layers * self.n_experts * self.hidden if self.n_experts > 1 else 0

    @property
    def predictor_parameters(self) -> int:
        ranks = () if self.predictors is None else self.predictors.ranks
        return sum(ranks) * self.n_experts * (self.hidden + self.n_neurons)

    @property
    def norm_parameters(self) -> int:
        """Gains and biases of all norms."""
        of_layer = (1 if self.shared_norm else 2) * self.hidden * self.norm_vectors + (2 * self.head_dim if self.qk_norm else 0)
        return self.n_layers * of_layer + (0 if self.norm_after else self.hidden * self.norm_vectors)

    @property
    def norm_vectors(self) -> int:
        """Of one norm: a gain, and for a layer norm a bias."""
        return 2 if self.norm == "layer" else 1

    @property
    def bias_parameters(self) -> int:
        """Of the linear maps."""
        of_layer = (
            self.qkv_bias * (self.q_width + 2 * self.kv_width)
            + self.o_bias * self.hidden
            + self.ffn_bias * ((self.rows_per_neuron - 1) * self.n_neurons + self.hidden)
        )
        return self.n_layers * of_layer

    @property
    def position_parameters(self) -> int:
        return self.context * self.hidden if self.learned_positions else 0

    @property
    def projection_parameters(self) -> int:
        """The matrices between embedding and states, and back."""
        return 2 * self.hidden * self.embedding_width if self.embedding_width else 0

    @property
    def parameters(self) -> int:
        matrices = self.neuron_parameters + self.attention_parameters + self.embedding_parameters + self.projection_parameters
        small = self.norm_parameters + self.bias_parameters + self.position_parameters
        return matrices + self.router_parameters + self.predictor_parameters + small

    def kv_bytes_per_token(self, element_bytes: int = 2) -> int:
        """Bytes of keys and values that one token leaves in the cache, over all layers (bf16 unless told otherwise)."""
        return 2 * self.n_layers * self.kv_width * element_bytes
