"""NeuronBank: the FFN neurons of one (layer, expert). Slicing a bank slices all of a neuron's rows at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.predictor import Predictor
from models.rows import Rows


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class NeuronBank:
    """Neuron i is row i of `gate` (None when plain), of `up`, and of `down` (the transposed down projection).

    Biases are float32 [N]. The bias of the down projection belongs to the transformer. `mask` is a predictor that is part of the
    model: a neuron that it does not name is silent. It reads the state that the bank gets, in the bank's format.
    """

    gate: Rows | None
    up: Rows
    down: Rows
    gate_bias: Tensor | None = None
    up_bias: Tensor | None = None
    mask: Predictor | None = None

    def __post_init__(self) -> None:
        assert self.gate is None or len(self.gate) == len(self.up)
        assert len(self.up) == len(self.down)
        assert self.up.k == self.down.k
        assert self.mask is None or (self.mask.reads == "normed" and len(self.mask.outward) == len(self.up))
        assert self.mask is None or self.mask.inward.format is self.up.format

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
        """Of the neurons, the mask left out."""
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
            mask=None if self.mask is None else self.mask[which],
        )

    def to(self, device: torch.device | str) -> "NeuronBank":
        return NeuronBank(
            gate=None if self.gate is None else self.gate.to(device),
            up=self.up.to(device),
            down=self.down.to(device),
            gate_bias=None if self.gate_bias is None else self.gate_bias.to(device),
            up_bias=None if self.up_bias is None else self.up_bias.to(device),
            mask=None if self.mask is None else self.mask.to(device),
        )
