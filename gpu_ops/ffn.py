"""`ffn` on a torch device: hot neurons fire often, so every one is computed, tile by tile, and the silent ones masked."""

from dataclasses import replace

import torch
from torch import Tensor

from gpu_ops.tiles import exact_products, tiles
from models.bank import NeuronBank
from models.ffn import combine, combine_firing, neurons
from models.formats import Input
from models.predictor import Predictor
from models.rows import Rows
from models.spec import FfnRule

FEW_TOKENS = 8  # up to here masking token by token costs less than waiting for the device to say whether weights are finite


def ffn(bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
    """What the neurons of `bank` add: x [T, H] -> float32 [T, H] on the device of the bank.

    Up to FEW_TOKENS tokens nothing waits for the device: the work is queued when this returns; and each token's bits are its
    own, since a library's product of several may add in another order than that of one.
    """
    out = torch.zeros(len(x), bank.hidden, device=bank.device)
    if len(x) == 0:
        return out
    values = x.decode()
    with exact_products():
        for tile in tiles(len(bank), bank.hidden):
            part = bank[tile]
            if len(x) <= FEW_TOKENS:
                out += combine_firing(one_by_one(widened(part), values, rule), part.down.decode())
            else:
                out += combine(neurons(part, Input(values), rule), part.down.decode())
    return out


def one_by_one(bank: NeuronBank, values: Tensor, rule: FfnRule) -> Tensor:
    """h [T, N] of values [T, H], a product for each token."""
    return torch.cat([neurons(bank, Input(one), rule) for one in values.split(1)])


def widened(bank: NeuronBank) -> NeuronBank:
    """The same neurons, gate and up as float32 rows."""
    gate = None if bank.gate is None else Rows.encode("float32", bank.gate.decode())
    return NeuronBank(gate, Rows.encode("float32", bank.up.decode()), bank.down, bank.gate_bias, bank.up_bias, widened_mask(bank.mask))


def widened_mask(mask: Predictor | None) -> Predictor | None:
    """Its inward rows float32, since they meet what gate and up meet; the outward ones meet what their own format makes of it."""
    return None if mask is None else replace(mask, inward=Rows.encode("float32", mask.inward.decode()))
