"""A format's functions called as C functions: what kernels call, without a kernel around it."""

from collections.abc import Sequence
from ctypes import CFUNCTYPE, c_int64
from typing import Any

import torch
from torch import Tensor

from cpu_ops.describe import CODES
from cpu_ops.kernels.row_code import Addresses, compiled
from models.bits import FormatName
from models.formats import Input
from models.rows import Rows


def functions(name: FormatName) -> Addresses:
    return compiled(CODES[name])[0]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def record_views(name: FormatName, weights: Tensor) -> Rows:
    """Rows with another matrix's between them, as a pack stores `up` and `down`: strided, and aligned to nothing."""
    records = Rows.encode(name, weights).records()
    beside = torch.cat([records, records.flip(0)], dim=1)
    return Rows.view(name, weights.shape[1], beside[:, : records.shape[1]])


def row_at(rows: Rows, i: int) -> tuple[int, int]:
    """The addresses of a row's weights and scales."""
    weights, *scales = rows.planes
    return weights[i].data_ptr(), scales[0][i].data_ptr() if scales else 0


def input_at(x: Input, token: int) -> tuple[int, int]:
    return x.values[token:].data_ptr(), 0 if x.scales is None else x.scales[token:].data_ptr()


def products(rows: Rows, x: Input) -> Tensor:
    """float32 [T, n], all tokens of a row at once."""
    name, out = rows.format.name, torch.empty(len(x), len(rows))
    prepared = prepare(name, x, rows.k)
    table, stride = listed(rows, range(len(rows))), prepared.stride(0) * prepared.element_size()
    call = _procedure(functions(name).products, 9)
    call(table.data_ptr(), len(rows), prepared.data_ptr(), stride, len(x), out.data_ptr(), 4, 4 * len(rows), rows.k)
    return out


def listed(rows: Rows, chosen: Sequence[int]) -> Tensor:
    """int64 [m, 3]: addresses of weights and scales, and nothing to ask for."""
    return torch.tensor([(*row_at(rows, i), 0) for i in chosen], dtype=torch.int64).reshape(len(chosen), 3)


def lonely_products(rows: Rows, x: Input) -> Tensor:
    """float32 [T, n], each row with each token by itself."""
    found = [products(rows[i : i + 1], alone(x, token)) for token in range(len(x)) for i in range(len(rows))]
    return torch.cat([torch.empty(0, 1), *found]).reshape(len(x), len(rows))


def alone(x: Input, token: int) -> Input:
    return Input(x.values[token : token + 1], None if x.scales is None else x.scales[token : token + 1])


def prepare(name: FormatName, x: Input, k: int) -> Tensor:
    size = CODES[name].prepared_bytes(k)
    if size == 0:
        return x.values
    prepared = torch.empty(len(x), size, dtype=torch.uint8)
    for token in range(len(x)):
        _procedure(functions(name).prepare, 4)(*input_at(x, token), prepared[token].data_ptr(), k)
    return prepared


def axpys(rows: Rows, chosen: Sequence[int], factors: Tensor, raw: Tensor) -> None:
    """raw += factor · row, in order."""
    table = listed(rows, chosen)
    call = _procedure(functions(rows.format.name).axpys, 5)
    call(table.data_ptr(), factors.data_ptr(), len(chosen), raw.data_ptr(), rows.k)


def raw_sums(rows: Rows) -> Tensor:
    return torch.zeros(CODES[rows.format.name].raw_floats(rows.k))


def settled(rows: Rows, raw: Tensor) -> Tensor:
    """float32 [k]."""
    out = torch.empty(rows.k)
    _procedure(functions(rows.format.name).settle, 3)(raw.data_ptr(), out.data_ptr(), rows.k)
    return out


def ask(rows: Rows, i: int) -> None:
    _procedure(functions(rows.format.name).ask, 3)(*row_at(rows, i), rows.k)


def _procedure(address: int, arguments: int) -> Any:
    return CFUNCTYPE(None, *[c_int64] * arguments)(address)
