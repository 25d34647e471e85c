"""Every form in which rows are read, once: the table that contract tests and `benchmarks/kernels.py` walk. Times nothing."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cpu_ops.passes import add_up, multiply
from models.bits import FORMAT_NAMES, FormatName
from models.formats import Input
from models.rows import Rows

SEED = 0


@dataclass(frozen=True, slots=True)
class Form:
    """`compute` takes rows, one token and which rows int64 [m]; `wanted` is the same in float64, of decoded weights and values.

    density: the share of rows that are read.
    """

    name: str
    density: float
    compute: Callable[[Rows, Input, Tensor], Tensor]
    wanted: Callable[[Tensor, Tensor], Tensor]

    def chosen(self, n: int) -> Tensor:
        """int64, rising: which of n rows are read."""
        if self.density == 1:
            return torch.arange(n)
        return (torch.rand(n, generator=torch.Generator().manual_seed(SEED)) < self.density).nonzero().flatten()


def _product(weights: Tensor, values: Tensor) -> Tensor:
    return weights @ values


def _sum(weights: Tensor, values: Tensor) -> Tensor:
    return weights.sum(0)


def _add_up(rows: Rows, x: Input, which: Tensor) -> Tensor:
    return add_up(rows, which)


FORMS = (
    Form("dense", 1.0, multiply, _product),
    Form("gathered", 0.1, multiply, _product),
    Form("axpy", 1.0, _add_up, _sum),
    Form("axpy of a tenth", 0.1, _add_up, _sum),
)
TABLE: tuple[tuple[FormatName, Form], ...] = tuple((name, form) for name in FORMAT_NAMES for form in FORMS)
