"""How often each neuron fires, as placement needs it: counted by a profile, or assumed. Knows no bytes and no seconds.

Without a profile a stated power law stands in: the neuron of rank i (from 1) fires at min(1, c·i^−1.1), with c such that 90 %
of a bank's neurons are silent at a token that reaches it; then a third of the neurons makes 80 % of the firings, between what
was seen for OPT-30B (26 %) and a ReGLU-70B (43 %). For dReLU the gate alone passes 30 %. A neuron of an activation that is
never exactly zero (SiLU, GELU) fires whenever its expert is routed to, and routing is taken to be even.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import BadValue
from models.spec import ModelSpec
from profiles.firing import FiringProfile

ASSUMED_EXPONENT = 1.1
ASSUMED_SPARSITY = 0.9
ASSUMED_GATE_SPARSITY = 0.7  # of a dReLU gate alone

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rates:
    """Probabilities per token. `fired` and `gate` [L, E·N]: the neuron fires, its gate passes; `routed` [L, E]: the expert is reached."""

    fired: Floats
    gate: Floats
    routed: Floats

    @property
    def order(self) -> Ints:
        """int64 [L, E·N]: each layer's neurons, all experts together, from hottest to coldest; ties by number."""
        return np.argsort(-self.fired, axis=1, kind="stable")


def recorded(profile: FiringProfile, spec: ModelSpec) -> Rates:
    """What the profile counted; BadValue when it counted a model of another shape."""
    if profile.fired.shape != (spec.n_banks, spec.n_neurons):
        banks, neurons = profile.fired.shape
        why = f"is of another model, for this one has {spec.n_banks} of {spec.n_neurons}; record it again with `profiles record`"
        raise BadValue("profile", f"{banks} banks of {neurons} neurons", why)
    layers = (spec.n_layers, spec.n_experts * spec.n_neurons)
    routed = profile.routed.reshape(spec.n_layers, spec.n_experts) / max(profile.tokens, 1)
    return Rates(profile.rate.reshape(layers), profile.gate_rate.reshape(layers), routed)


def assumed(spec: ModelSpec) -> Rates:
    """The power law of the docstring, the same in every bank."""
    share = spec.experts_per_token / spec.n_experts
    fired = _bank(spec, ASSUMED_SPARSITY)
    gate = _bank(spec, ASSUMED_GATE_SPARSITY) if spec.rule.kind == "gated_both" else fired
    layers = (spec.n_layers, spec.n_experts)
    return Rates(np.tile(fired * share, layers), np.tile(gate * share, layers), np.full(layers, share))


def _bank(spec: ModelSpec, sparsity: float) -> Floats:
    return power_law(spec.n_neurons, sparsity) if spec.rule.is_sparse else np.ones(spec.n_neurons)


def power_law(n: int, sparsity: float) -> Floats:
    """float64 [n], falling: min(1, c·i^−ASSUMED_EXPONENT), its mean 1 − `sparsity`."""
    falling = np.arange(1, n + 1, dtype=np.float64) ** -ASSUMED_EXPONENT
    low, high = 0.0, 1.0 / falling[-1]  # at c = high every neuron always fires
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if np.minimum(1.0, middle * falling).mean() > 1.0 - sparsity else (middle, high)
    return np.minimum(1.0, low * falling)
