"""What a decode step takes around its kernels: small models, with few and with more layers, less their kernels. A clock runs here.

Layers are played back from a tape, as the server's are. Where weights pass through the caches, all that is around the kernels has
to be fetched again and again; so there are two models, one of next to no weights and one of megabytes a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import cpu_ops
from cpu_ops.ffn import ffn
from cpu_ops.input import input
from cpu_ops.linear import linear
from cpu_ops.measure import RULE, Buffer, Firing, Played, intercept, medians, rounds
from models.bits import BITS, FormatName
from models.formats import Input
from models.kv_cache import KvCache
from models.spec import ModelSpec, Rope
from models.spine import Entrance, LayerSpine, Norm, Spine
from models.step import Step
from models.transformer import Transformer

HEAD = 64
VOCAB = 32
ROWS_OF_WIDTH = 7  # of a layer, in widths: three of qkv, one of o, three of as many neurons
FEW_LAYERS = 2
MOST_LAYERS = 16
POSITION = 16
FIRING = 0.1


@dataclass(frozen=True, slots=True)
class Around:
    """Seconds of a layer and of a step, matrices and banks left out."""

    layer_seconds: float
    step_seconds: float


def around(name: FormatName, memory: Tensor, width: int) -> Around:
    """Of a model whose layers are cut from `memory`, uint8, which is written over: the slope over layers, and the rest of a step."""
    per_layer = ROWS_OF_WIDTH * width * BITS[name].row_bytes(width)
    most = min(MOST_LAYERS, len(memory) // per_layer)
    layers = [Layer.over(memory[i * per_layer : (i + 1) * per_layer], name, width) for i in range(most)]
    few, many = (Trial.build(layers[:count]) for count in (FEW_LAYERS, most))
    calls = (few, many, Played.of(few.kernels), Played.of(many.kernels))
    besides = [(whole_few - few_kernels, whole_many - many_kernels) for whole_few, whole_many, few_kernels, many_kernels in rounds(calls)]
    of_few, of_many = medians(besides)
    return Around(max(of_many - of_few, 0.0) / (most - FEW_LAYERS), intercept((FEW_LAYERS, most), of_few, of_many))


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's matrices and bank, side by side in memory of their own. All rows are ones, and so is every normed state."""

    spine: LayerSpine
    firing: Firing

    @classmethod
    def over(cls, memory: Tensor, name: FormatName, width: int) -> "Layer":
        """memory: uint8 [ROWS_OF_WIDTH · width · row], which is written over."""
        matrix, ones = Buffer.over(memory, name, width).matrix, torch.ones(width)
        bank = Buffer.over(memory[4 * width * BITS[name].row_bytes(width) :], name, width)
        qkv, o, norm = matrix[: 3 * width], matrix[3 * width : 4 * width], Norm(ones)
        return cls(LayerSpine(norm, qkv, None, o, None, norm, None), bank.firing(FIRING))

    def compute(self) -> None:
        """The kernels that are measured apart."""
        for rows in (self.spine.qkv, self.spine.o):
            linear(rows, self.firing.x)
        self.firing()


@dataclass(frozen=True, slots=True)
class LayersFfn:
    """An Ffn of banks that may be planted upon."""

    layers: Sequence[Layer]

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> "LayersPending":
        bank = self.layers[layer].firing.bank
        return LayersPending(self.layers[layer].firing, input(bank.up.format, x))


@dataclass(frozen=True, slots=True)
class LayersPending:
    firing: Firing
    x: Input

    def finish(self) -> Tensor:
        return ffn(self.firing.bank, self.x, RULE)


@dataclass(frozen=True, slots=True)
class Trial:
    """A model with its cache; called, it decodes a token."""

    model: Transformer
    layers: Sequence[Layer]
    cache: KvCache

    @classmethod
    def build(cls, layers: Sequence[Layer]) -> "Trial":
        some = layers[0].spine.o
        embed, heads = some[:VOCAB], some.k // HEAD
        rope = Rope(1e4, HEAD)
        spec = ModelSpec("llama", len(layers), some.k, heads, heads, HEAD, len(layers[0].firing.bank), VOCAB, 2 * POSITION, RULE, rope)
        spine = Spine(Entrance(embed), [layer.spine for layer in layers], Norm(torch.ones(some.k)), embed)
        model = Transformer(spec, spine, LayersFfn(layers), cpu_ops, repeat=cpu_ops.replayed)
        return cls(model, layers, KvCache(spec, slots=1, context=2 * POSITION))

    def __call__(self) -> int:
        places = (torch.tensor([number]) for number in (0, POSITION, 0, 0))
        return int(self.model.forward(Step(*places), self.cache).argmax())

    def kernels(self) -> None:
        """What a token computes in kernels that are measured apart, and nothing else."""
        for layer in self.layers:
            layer.compute()
