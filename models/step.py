"""Step: all the transformer may know of requests."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the engine: `T` tokens of any number of sequences.

    Tokens of one slot are adjacent and in the order of their positions. `tokens`, `positions` and `slots` are int64 [T] on
    the CPU; `wanted` is int64 [R], R ≤ T: the rows whose logits count.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    wanted: Tensor

    def __post_init__(self) -> None:
        assert self.tokens.shape == self.positions.shape == self.slots.shape

    def __len__(self) -> int:
        return self.tokens.shape[0]
