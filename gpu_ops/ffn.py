"""`ffn` on a torch device: hot neurons fire often, so every one is computed, tile by tile, and the silent ones masked."""

import torch
from torch import Tensor

from gpu_ops.tiles import exact_products, tiles
from models.bank import NeuronBank
from models.ffn import combine, combine_firing, neurons
from models.formats import Input
from models.spec import FfnRule

FEW_TOKENS = 8  # up to here masking token by token costs less than waiting for the device to say whether weights are finite


def ffn(bank: NeuronBank, x: Input, rule: FfnRule) -> Tensor:
    """What the neurons of `bank` add: x [T, H] -> float32 [T, H] on the device of the bank.

    Up to FEW_TOKENS tokens nothing waits for the device: the work is queued when this returns.
    """
    out = torch.zeros(len(x), bank.hidden, device=bank.device)
    if len(x) == 0:
        return out
    values = Input(x.decode())
    add_up = combine_firing if len(x) <= FEW_TOKENS else combine
    with exact_products():
        for tile in tiles(len(bank), bank.hidden):
            part = bank[tile]
            out += add_up(neurons(part, values, rule), part.down.decode())
    return out
