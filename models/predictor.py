"""Predictor: a low-rank network that names the neurons of a bank likely to fire, before any of their rows is read."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from models.ffn import dense_linear
from models.formats import Input
from models.rows import Rows

State = Literal["normed", "residual"]


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


def predicted(predictor: Predictor, state: Tensor) -> Tensor:
    """state float32 [T, H] -> bool [T, N], in plain torch: what kernels are held to."""
    inside = dense_linear(predictor.inward, predictor.inward.format.input(state)).relu()
    made: Input = predictor.outward.format.input(inside)
    return dense_linear(predictor.outward, made) >= predictor.threshold
