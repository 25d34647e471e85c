"""Predictor: a low-rank network that names the neurons of a bank likely to fire, before any of their rows is read."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.formats import Input
from models.rows import Rows

State = Literal["normed", "residual"]
ABOVE_ZERO = float(torch.finfo(torch.float32).tiny)  # the threshold of "more likely than not", which a score of exactly 0 is not


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Predictor:
    """Neuron i is predicted where outward[i] · relu(inward · state) ≥ threshold (Liu et al., "Deja Vu", 2023).

    inward [r, H], outward [N, r], in any format. `reads` says which state: the one the FFN gets, or the residual before its norm.
    """

    inward: Rows
    outward: Rows
    threshold: float
    reads: State = "normed"

    def __post_init__(self) -> None:
        assert self.inward.n == self.outward.k, (self.inward.n, self.outward.k)

    @property
    def nbytes(self) -> int:
        return self.inward.nbytes + self.outward.nbytes

    def __getitem__(self, which: slice | Tensor) -> "Predictor":
        """For some of the bank's neurons."""
        return Predictor(self.inward, self.outward[which], self.threshold, self.reads)

    def to(self, device: torch.device | str) -> "Predictor":
        return Predictor(self.inward.to(device), self.outward.to(device), self.threshold, self.reads)


def predicted(predictor: Predictor, state: Tensor) -> Tensor:
    """state float32 [T, H] -> bool [T, N], in plain torch: what kernels are held to."""
    return named(predictor, predictor.inward.format.input(state))


def named(predictor: Predictor, x: Input) -> Tensor:
    """The same from what the inward rows meet."""
    inside = F.linear(x.decode(), predictor.inward.decode()).relu()
    made: Input = predictor.outward.format.input(inside)
    return F.linear(made.decode(), predictor.outward.decode()) >= predictor.threshold
