"""The Protocols that part the transformer from what computes its matrices and its FFN.

`Ops` is the table of contents that the modules `cpu_ops` and `gpu_ops` share; `Ffn` is what stands in the FFN's place.
"""

from typing import Protocol

from torch import Tensor

from models.bank import NeuronBank
from models.formats import Format, Input
from models.kv_cache import KvCache
from models.layers import Rotary, Rotation, Segments
from models.rows import Rows
from models.spec import FfnRule


class Ops(Protocol):
    """The arithmetic of a step, on one device. Results are float32 on the device of the arguments.

    A step that does nothing else can be recorded and played back (`cpu_ops.replayed`).
    """

    def embed(self, rows: Rows, which: Tensor, /) -> Tensor:
        """Rows by index int64 [T] -> float32 [T, k]."""

    def take(self, x: Tensor, which: Tensor, /) -> Tensor:
        """float32 [T, H], int64 [R] -> [R, H]."""

    def rotation(self, rotary: Rotary, positions: Tensor, /) -> Rotation:
        """That of positions int64 [T]."""

    def add(self, a: Tensor, b: Tensor, /) -> Tensor:
        """float32 [T, H] + [T, H] or [H]."""

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x float32 [T, H] -> x / sqrt(mean(x²) + eps) · weight."""

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """x float32 [T, H] -> (x - mean(x)) / sqrt(variance(x) + eps) · weight + bias."""

    def input(self, format: Format, x: Tensor) -> Input:
        """`format.input(x)`, to the bit: float32 [T, K] -> what rows of the format are multiplied with."""

    def linear(self, rows: Rows, x: Input, bias: Tensor | None = None) -> Tensor:
        """rows [n, K], x [T, K], bias float32 [n] -> float32 [T, n]."""

    def attend(self, layer: int, qkv: Tensor, rotation: Rotation, segments: Segments, cache: KvCache) -> Tensor:
        """qkv float32 [T, q + 2·kv] -> what each token's heads gather, [T, q].

        Turns queries and keys, writes the segments' keys and values to the cache, and attends to what each token may see.
        """

    def ffn(self, bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
        """What the neurons of `bank` add to the residual: x [T, H] -> float32 [T, H]; zeros for an empty bank.

        Exact: a neuron contributes unless its activation is exactly zero, and then nothing, whatever its other weights are
        (NaN included). A NaN in a gate propagates. Where the bank has a mask, only what it names contributes.
        """


class Pending(Protocol):
    """Work that has been queued."""

    def finish(self) -> Tensor:
        """Waits, and gives float32 [T, H] on the spine's device."""


class Ffn(Protocol):
    """The FFN of every layer. Each implementation owns its banks. Biases of `down` belong to the transformer."""

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> Pending:
        """Queues layer `layer` on the normed state `x` [T, H].

        `residual` [T, H] is the state before the norm (of a parallel layer, its input), which predictors read. `routing` is None
        for a dense layer, else float32 [T, E]: the weight of each expert for each token, zero where it was not routed to.
        """
