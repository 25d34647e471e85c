"""A packed model, run: the shortest way from a folder to logits, over any Ops."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.bank import NeuronBank
from models.ffn import DenseFfn, Done, dense_ffn, dense_linear
from models.formats import Format, Input
from models.kv_cache import KvCache
from models.layers import attend, embed, layer_norm, rms_norm, rotation, take
from models.ops import Ops
from models.packed import PackedModel
from models.spec import FfnRule
from models.step import Step
from models.transformer import Transformer


class TorchOps:
    """The definitions in `models/ffn.py` and `models/layers.py`, as Ops."""

    norm = staticmethod(rms_norm)
    layer_norm = staticmethod(layer_norm)
    linear = staticmethod(dense_linear)
    attend = staticmethod(attend)
    embed = staticmethod(embed)
    take = staticmethod(take)
    rotation = staticmethod(rotation)
    ffn = staticmethod(dense_ffn)
    add = staticmethod(torch.add)

    def input(self, format: Format, x: Tensor) -> Input:
        return format.input(x)


@dataclass(frozen=True)
class OpsFfn:
    """The whole FFN by one Ops, as the split does it when every neuron is on one side."""

    ops: Ops
    rule: FfnRule
    banks: Sequence[Sequence[NeuronBank]]

    def start(self, layer: int, x: Tensor, residual: Tensor, routing: Tensor | None) -> Done:
        parts = [self.ops.ffn(bank, self.ops.input(bank.up.format, x), self.rule) for bank in self.banks[layer]]
        return Done(parts[0] if routing is None else torch.einsum("te,eth->th", routing, torch.stack(parts)))


@dataclass(frozen=True)
class Part:
    """Tokens that a step gives to one slot, the first of them at position `start`."""

    slot: int
    start: int
    tokens: Sequence[int]


def dense(packed: PackedModel, ops: Ops | None = None) -> Transformer:
    """Every neuron on the CPU device; by DenseFfn in plain torch, or everything by `ops`."""
    spec, spine = packed.manifest.spec, packed.load_spine()
    banks = [[cold for _, cold in packed.load_banks(layer)] for layer in range(spec.n_layers)]
    if ops is None:
        return Transformer(spec, spine, DenseFfn(spec.rule, banks), TorchOps())
    return Transformer(spec, spine, OpsFfn(ops, spec.rule, banks), ops)


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


def peak_bytes() -> int:
    """The most memory this process has held at once since it was started. (ru_maxrss would count the parent's, before exec.)"""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].removesuffix("kB")) * 1024
