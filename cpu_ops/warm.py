"""Compiling before the first request instead of in it."""

from collections.abc import Iterable

import torch

from cpu_ops.attend import compile_kernel
from cpu_ops.ffn import FEW_TOKENS, ffn
from cpu_ops.input import input
from cpu_ops.linear import linear
from cpu_ops.norm import norm
from cpu_ops.tiles import decode
from cpu_ops.topology import check_threading_layer
from models.bank import NeuronBank
from models.bits import GROUP, FormatName
from models.formats import FORMATS
from models.rows import Rows
from models.spec import FfnRule


def warm_up(formats: Iterable[FormatName]) -> None:
    """Compiles, or loads from the cache, every kernel of a step on rows of these formats; one kernel serves all rules."""
    norm(torch.ones(1, GROUP), torch.ones(GROUP), 1e-5)
    compile_kernel()
    for name in formats:
        rows = Rows.encode(name, torch.tensor([[1.0], [-1.0]]).repeat(1, GROUP))  # a neuron that fires and one that does not
        for tokens in (1, FEW_TOKENS + 1):
            x = input(FORMATS[name], torch.ones(tokens, GROUP))
            linear(rows, x)
            ffn(NeuronBank(None, rows, rows), x, FfnRule("plain", "relu"))
        decode(rows)
    check_threading_layer()
