"""What a decode step takes around its kernels: a model of next to no weights, with few and with more layers. A clock runs here."""

from dataclasses import dataclass

import torch
from torch import Tensor

import cpu_ops
from cpu_ops.ffn import ffn
from cpu_ops.input import input
from cpu_ops.measure import intercept, medians
from models.bank import NeuronBank
from models.bits import FormatName
from models.formats import Input
from models.kv_cache import KvCache
from models.rows import Rows
from models.spec import FfnRule, ModelSpec, Rope
from models.spine import LayerSpine, Spine
from models.step import Step
from models.transformer import Transformer

WIDTH = 64  # weights of a row, and rows of a matrix: a call is over before a second thread would have woken
LAYERS = (2, 12)
POSITION = 16
RULE = FfnRule("gated", "relu")


@dataclass(frozen=True, slots=True)
class Around:
    """Seconds of a layer and of a step, banks left out."""

    layer_seconds: float
    step_seconds: float


@dataclass(frozen=True, slots=True)
class SmallFfn:
    """An Ffn whose layers share one bank."""

    bank: NeuronBank

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> "SmallPending":
        return SmallPending(self.bank, input(self.bank.up.format, x))


@dataclass(frozen=True, slots=True)
class SmallPending:
    bank: NeuronBank
    x: Input

    def finish(self) -> Tensor:
        return ffn(self.bank, self.x, RULE)


def around(name: FormatName) -> Around:
    """The slope over layers, less a bank, and the rest of a step."""
    bank = small_bank(name)
    x = input(bank.up.format, torch.ones(1, WIDTH))
    few, many, alone = medians([*(Trial.build(layers, bank) for layers in LAYERS), lambda: ffn(bank, x, RULE)])
    slope = (many - few) / (LAYERS[1] - LAYERS[0])
    return Around(max(slope - alone, 0.0), intercept(LAYERS, few, many))


@dataclass(frozen=True, slots=True)
class Trial:
    """A model with its cache; called, it decodes a token."""

    model: Transformer
    cache: KvCache

    @classmethod
    def build(cls, layers: int, bank: NeuronBank) -> "Trial":
        spec = ModelSpec("llama", layers, WIDTH, 1, 1, WIDTH, len(bank), WIDTH, 2 * POSITION, RULE, Rope(1e4, WIDTH))
        return cls(Transformer(spec, small_spine(spec, bank.up), SmallFfn(bank), cpu_ops), KvCache(spec, slots=1, context=2 * POSITION))

    def __call__(self) -> int:
        places = (torch.tensor([number]) for number in (0, POSITION, 0, 0))
        return int(self.model.forward(Step(*places), self.cache).argmax())


def small_bank(name: FormatName) -> NeuronBank:
    rows = Rows.encode(name, torch.eye(WIDTH))
    return NeuronBank(rows, rows, rows)


def small_spine(spec: ModelSpec, rows: Rows) -> Spine:
    """Every matrix made of `rows` [64, 64]."""
    ones = torch.ones(WIDTH)
    qkv = rows[torch.arange(3 * WIDTH) % WIDTH]
    layers = [LayerSpine(ones, qkv, None, rows, None, ones, None) for _ in range(spec.n_layers)]
    return Spine(rows, layers, ones, rows)
