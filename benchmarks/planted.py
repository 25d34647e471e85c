"""The planted law of firing: gates whose neurons fire at chosen rates, and the predictor that foresees them. No files.

The first group of hidden channels is set apart: the normed state is the same constant on channel 0 at every token, and zero on
the rest of the group. So a row's weight on channel 0 is a bias. The rest of a row makes a normal product, so that the bias
ndtri(p) makes it positive at a share p of tokens; p follows a power law over neurons.

Rows of `gate` lie in a space of few directions, which is what makes firing predictable at a low rank: the predictor's inner
neurons are those directions, once each way (relu throws half of a product away), and the constant. It errs by its rounding to
int4, as the gate does by its own. Bytes and time do not depend on what weights are.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.bits import GROUP, FormatName
from models.predictor import Predictor, predicted
from models.rows import Rows
from models.spec import ModelSpec

FIRING = 0.1  # mean share of neurons that fire at a token
PASSING = 0.3  # and whose gate passes, where gate and up are both rectified
PREDICTED = 0.12  # and that a predictor names
EXPONENT = 0.7  # of the power law: rate ∝ rank^-EXPONENT, up to HIGHEST
HIGHEST = 0.98
RESIDUAL = 16.0  # standard deviation of the other channels of a residual
CONSTANT = 64.0  # channel 0 of a residual
CALIBRATION_STATES = 128
OTHER_STREAM = 1 << 32  # added to the seed: the random numbers of the other weights begin at the seed itself


def firing_rates(n: int, mean: float = FIRING) -> Tensor:
    """float64 [n], falling, of that mean: min(HIGHEST, c · rank^-EXPONENT), c found by bisection."""
    powers = torch.arange(1, n + 1, dtype=torch.float64) ** -EXPONENT
    low, high = 0.0, float(n)
    for _ in range(100):
        scale = (low + high) / 2
        low, high = (scale, high) if (scale * powers).clamp(max=HIGHEST).mean() < mean else (low, scale)
    return (low * powers).clamp(max=HIGHEST)


@dataclass(frozen=True, slots=True)
class States:
    """Normed states of a synthetic model: `constant` on channel 0, normal of `deviation` on the channels not set apart."""

    hidden: int

    @property
    def deviation(self) -> float:
        return RESIDUAL / math.sqrt((CONSTANT**2 + (self.hidden - GROUP) * RESIDUAL**2) / self.hidden)

    @property
    def constant(self) -> float:
        return CONSTANT / RESIDUAL * self.deviation

    def biases(self, rates: Tensor) -> Tensor:
        """float32: weights on channel 0 that make a row of norm 1 positive at these rates."""
        normal: Tensor = torch.special.ndtri(rates)
        return (normal * self.deviation / self.constant).float()

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """float32 [n, H]."""
        states = torch.randn(n, self.hidden, generator=generator) * self.deviation
        states[:, :GROUP] = 0.0
        states[:, 0] = self.constant
        return states


class Planted:
    """Biases and directions of one layer's neurons, the same for the same seed."""

    def __init__(self, spec: ModelSpec, seed: int) -> None:
        self.states = States(spec.hidden)
        self.generator = torch.Generator().manual_seed(OTHER_STREAM + seed)
        self.gate_bias, self.up_bias = self._biases(spec)
        directions = (predictor_rank(spec.hidden) - GROUP) // 2
        apart = torch.randn(spec.hidden - GROUP, directions, generator=self.generator)
        self.directions = torch.linalg.qr(apart).Q.T.contiguous()  # [directions, H - GROUP], orthonormal
        self.mixture = torch.randn(spec.n_neurons, directions, generator=self.generator) / math.sqrt(directions)

    def _biases(self, spec: ModelSpec) -> tuple[Tensor, Tensor | None]:
        """float32 [N] of gate and up. Where both are rectified a neuron fires where both are positive: up's rate is the quotient."""
        shuffled = torch.randperm(spec.n_neurons, generator=self.generator)
        fired = firing_rates(spec.n_neurons)[shuffled]
        if spec.rule.kind != "gated_both":
            return self.states.biases(fired), None
        passed = firing_rates(spec.n_neurons, PASSING)[shuffled]
        return self.states.biases(passed), self.states.biases((fired / passed).clamp(max=HIGHEST))

    @property
    def order(self) -> Tensor:
        """int64 [1, N]: a profile's order, the neurons that fire most often first."""
        bias = self.gate_bias if self.up_bias is None else self.gate_bias + self.up_bias
        return bias.argsort(descending=True, stable=True)[None]

    def gate(self, start: int, stop: int) -> Tensor:
        """float32 [stop - start, H]."""
        rows = torch.zeros(stop - start, self.states.hidden)
        rows[:, GROUP:] = self.mixture[start:stop] @ self.directions
        rows[:, 0] = self.gate_bias[start:stop]
        return rows


def predictor_rank(hidden: int) -> int:
    """A quarter of the width: 1024 at 4096. Small models need more, since few directions make uneven products."""
    return max(4 * GROUP, hidden // 4)


def build_predictor(spec: ModelSpec, seed: int, name: FormatName) -> Predictor:
    """For a model of `synthetic.build` with this seed: it names a share PREDICTED of the neurons, nearly all that fire among them."""
    planted = Planted(spec, seed)
    inward = torch.zeros(predictor_rank(spec.hidden), spec.hidden)
    inward[:GROUP, 0] = 1.0  # a whole group of constants, so that rounding the bias does not round the products beside it
    inward[GROUP:, GROUP:] = torch.cat((planted.directions, -planted.directions))
    biases = planted.gate_bias[:, None].expand(-1, GROUP) / GROUP
    outward = torch.cat((biases, planted.mixture, -planted.mixture), dim=1)
    named = Predictor(Rows.encode(name, inward), Rows.encode(name, outward), threshold=0.0)
    return calibrated(named, planted.states.draw(CALIBRATION_STATES, planted.generator))


def calibrated(predictor: Predictor, states: Tensor) -> Predictor:
    """The same with the threshold at which it names a share PREDICTED of all (state, neuron) pairs; found by bisection."""
    low, high = -4.0, 4.0
    for _ in range(20):
        middle = (low + high) / 2
        share = float(predicted(at_threshold(predictor, middle), states).float().mean())
        low, high = (middle, high) if share > PREDICTED else (low, middle)
    return at_threshold(predictor, high)


def at_threshold(predictor: Predictor, threshold: float) -> Predictor:
    return Predictor(predictor.inward, predictor.outward, threshold, predictor.reads)
