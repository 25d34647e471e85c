"""Rows and inputs for comparing one CPU's code with another's, and what comes of them through every function of a format."""

import torch
from torch import Tensor

from cpu_ops import prompt
from models.bits import GROUP, FormatName
from models.formats import FORMATS, Input
from models.rows import Rows
from tests.cpu_ops.kernels import calls

GROUPED: tuple[FormatName, ...] = ("int4", "int8")


def rows_and_input(name: FormatName, *, exact: bool) -> tuple[Rows, Input]:
    """Five rows of 27 groups, which have runs of every length on every CPU, and three tokens.

    If exact, what is added needs no rounding in any order, fused or not."""
    weights, values = calls.random(5, 27 * GROUP) / 20, calls.random(3, 27 * GROUP, seed=1)
    if exact and name not in GROUPED:
        weights, values = weights.mul(80).round(), values.mul(4).round()
    rows, x = Rows.encode(name, weights), FORMATS[name].input(values)
    if exact and name in GROUPED:
        assert x.scales is not None
        for scales in (rows.planes[1], x.scales):
            scales.copy_(2.0 ** torch.arange(scales.numel()).remainder(3).reshape(scales.shape))
    return rows, x


def results_of_rows(rows: Rows, x: Input) -> Tensor:
    """Through each of the functions of a row."""
    raw, factors = calls.raw_sums(rows), torch.tensor([1.0, -2.0, 3.0, 1.0, 5.0])
    calls.axpys(rows, range(5), factors, raw)
    parts = [calls.lonely_products(rows, x), calls.products(rows, x), calls.settled(rows, raw)]
    return torch.cat([part.flatten() for part in parts])


def results_of_tiles(rows: Rows, x: Input) -> Tensor:
    """Through the functions of a tile, where there are any: five tokens, four of them together."""
    if x.scales is None:
        return torch.empty(0)
    five = Input(x.values.repeat(2, 1)[:5], x.scales.repeat(2, 1)[:5])
    out = torch.empty(5, len(rows))
    prompt.product(rows, five, out)
    return out


def results(rows: Rows, x: Input) -> Tensor:
    """Through all of them."""
    return torch.cat([results_of_rows(rows, x), results_of_tiles(rows, x).flatten()])
