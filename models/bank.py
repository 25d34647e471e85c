"""NeuronBank: the FFN neurons of one (layer, expert). Slicing a bank slices all of a neuron's rows at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.rows import Rows


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class NeuronBank:
    """Neuron i is row i of `gate` (None when plain), of `up`, and of `down` (the transposed down projection).

    Biases are float32 [N]. The bias of the down projection belongs to the transformer.
    """

    gate: Rows | None
    up: Rows
    down: Rows
    gate_bias: Tensor | None = None
    up_bias: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.gate is None or len(self.gate) == len(self.up)
        assert len(self.up) == len(self.down)
        assert self.up.k == self.down.k

    def __len__(self) -> int:
        return len(self.up)

    @property
    def hidden(self) -> int:
        return self.up.k

    @property
    def device(self) -> torch.device:
        return self.up.device

    @property
    def nbytes(self) -> int:
        rows = [self.up, self.down] if self.gate is None else [self.gate, self.up, self.down]
        return sum(part.nbytes for part in rows) + sum(4 * len(bias) for bias in (self.gate_bias, self.up_bias) if bias is not None)

    def __getitem__(self, which: slice | Tensor) -> "NeuronBank":
        """A slice shares memory; an index tensor int64 [m] gathers a copy."""
        return NeuronBank(
            gate=None if self.gate is None else self.gate[which],
            up=self.up[which],
            down=self.down[which],
            gate_bias=None if self.gate_bias is None else self.gate_bias[which],
            up_bias=None if self.up_bias is None else self.up_bias[which],
        )

    def to(self, device: torch.device | str) -> "NeuronBank":
        return NeuronBank(
            gate=None if self.gate is None else self.gate.to(device),
            up=self.up.to(device),
            down=self.down.to(device),
            gate_bias=None if self.gate_bias is None else self.gate_bias.to(device),
            up_bias=None if self.up_bias is None else self.up_bias.to(device),
        )
