"""A packed model, run: the shortest way from a folder to logits, over any Ops."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.bank import NeuronBank
from models.ffn import DenseFfn, dense_ffn, dense_linear
from models.formats import Input
from models.kv_cache import KvCache
from models.ops import Ops
from models.packed import PackedModel
from models.rows import Rows
from models.spec import FfnRule
from models.step import Step
from models.transformer import Transformer


class TorchOps:
    """The definitions in `models/ffn.py`, as Ops."""

    def linear(self, rows: Rows, x: Input, bias: Tensor | None = None) -> Tensor:
        return dense_linear(rows, x, bias)

    def ffn(self, bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
        return dense_ffn(bank, x, rule)


@dataclass(frozen=True)
class Part:
    """Tokens that a step gives to one slot, the first of them at position `start`."""

    slot: int
    start: int
    tokens: Sequence[int]


def dense(packed: PackedModel, ops: Ops | None = None) -> Transformer:
    """Every neuron computed in plain torch; the other matrices by `ops`."""
    spec = packed.manifest.spec
    banks = [[cold for _, cold in packed.load_banks(layer)] for layer in range(spec.n_layers)]
    return Transformer(spec, packed.load_spine(), DenseFfn(spec.rule, banks), ops or TorchOps())


def cache_for(model: Transformer, *, slots: int = 1, context: int = 64) -> KvCache:
    return KvCache(model.spec, slots=slots, context=context, dtype=torch.float32)


def run_step(model: Transformer, cache: KvCache, parts: Sequence[Part]) -> list[Tensor]:
    """One step; the logits [t, V] of each part."""
    tokens = [token for part in parts for token in part.tokens]
    positions = [part.start + i for part in parts for i in range(len(part.tokens))]
    slots = [part.slot for part in parts for _ in part.tokens]
    step = Step(torch.tensor(tokens), torch.tensor(positions), torch.tensor(slots), torch.arange(len(tokens)))
    return list(model.forward(step, cache).split([len(part.tokens) for part in parts]))


def run_in_pieces(model: Transformer, tokens: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """One sequence, `sizes` tokens a step: logits [T, V]."""
    cache, logits, start = cache_for(model), [], 0
    for size in sizes:
        logits += run_step(model, cache, [Part(0, start, tokens[start : start + size])])
        start += size
    assert start == len(tokens)
    return torch.cat(logits)
