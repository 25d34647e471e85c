"""Compiling before the first request instead of in it."""

from collections.abc import Iterable

import torch

from cpu_ops.add import add
from cpu_ops.attend import compile_kernel as compile_attention
from cpu_ops.embed import embed
from cpu_ops.ffn import FEW_TOKENS, ffn
from cpu_ops.input import input
from cpu_ops.linear import linear
from cpu_ops.norm import layer_norm, norm
from cpu_ops.relu import relu
from cpu_ops.replay import compile_kernel as compile_replay
from cpu_ops.rotation import compile_kernel as compile_rotation
from cpu_ops.take import take
from cpu_ops.tiles import decode
from cpu_ops.topology import check_threading_layer
from models.bank import NeuronBank
from models.bits import GROUP, FormatName
from models.formats import FORMATS
from models.rows import Rows
from models.spec import FfnRule


def warm_up(formats: Iterable[FormatName]) -> None:
    """Compiles, or loads from the cache, every kernel of a step on rows of these formats; one kernel serves all rules."""
    ones, first = torch.ones(1, GROUP), torch.tensor([0])
    norm(ones, ones[0], 1e-5)
    layer_norm(ones, ones[0], ones[0], 1e-5)
    relu(add(take(ones, first), ones))
    for compile_kernel in (compile_attention, compile_rotation, compile_replay):
        compile_kernel()
    for name in formats:
        rows = Rows.encode(name, torch.tensor([[1.0], [-1.0]]).repeat(1, GROUP))  # a neuron that fires and one that does not
        for tokens in (1, FEW_TOKENS + 1):
            x = input(FORMATS[name], torch.ones(tokens, GROUP))
            linear(rows, x)
            ffn(NeuronBank(None, rows, rows), x, FfnRule("plain", "relu"))
        decode(rows)
        embed(rows, first)
    check_threading_layer()
