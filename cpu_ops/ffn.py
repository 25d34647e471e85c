"""`ffn` on the CPU: exact gate-first selection for few tokens; every neuron, tile by tile, for many."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cpu_ops.describe import CODES, bias_array, check_meets, kernel_input, kernel_rows
from cpu_ops.kernels.activation import rule_codes
from cpu_ops.kernels.ffn import ffn as ffn_kernel
from cpu_ops.tiles import decode, tiles
from models.bank import NeuronBank
from models.ffn import activate, combine
from models.formats import Input
from models.spec import FfnRule

FEW_TOKENS = 16  # up to here the kernel wins


def ffn(bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
    """What the neurons of `bank` add: x [T, H] -> float32 [T, H]. Up to FEW_TOKENS tokens each one's bits are its own."""
    if len(bank) == 0 or len(x) == 0:
        return torch.zeros(len(x), bank.hidden)
    if len(x) > FEW_TOKENS or bank.up.format.name not in CODES:
        return _by_tiles(bank, x, rule)
    return _by_selection(bank, x, rule)


def _by_selection(bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
    first, first_bias, second_bias = (bank.up, bank.up_bias, None) if bank.gate is None else (bank.gate, bank.gate_bias, bank.up_bias)
    assert first.format is bank.up.format is bank.down.format
    check_meets(first, x)
    out = torch.empty(len(x), bank.hidden)
    ffn_kernel(
        kernel_rows(first),
        kernel_rows(bank.up),
        kernel_rows(bank.down),
        bias_array(first_bias),
        bias_array(second_bias),
        len(bank),
        kernel_input(x),
        rule_codes(rule),
        rule.threshold,
        out.numpy(),
    )
    return out


def _by_tiles(bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
    values = x.decode()
    out = torch.zeros_like(values)
    for tile in tiles(len(bank), bank.hidden):
        part = bank[tile]
        gate = None if part.gate is None else F.linear(values, decode(part.gate), part.gate_bias)
        h = activate(gate, F.linear(values, decode(part.up), part.up_bias), rule)
        out += combine(h, decode(part.down))
    return out
