"""From tensors to what kernels take: addresses and strides. Whoever calls keeps the tensors alive until the kernel returns."""

from array import array
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from cpu_ops.kernels.bf16 import Bf16Code
from cpu_ops.kernels.float32 import Float32Code
from cpu_ops.kernels.int4 import Int4Code
from cpu_ops.kernels.int8 import Int8Code
from cpu_ops.kernels.row_code import RowCode, compiled
from cpu_ops.kernels.rows import ROWS
from cpu_ops.tape import keep
from models.bits import BITS, FormatName
from models.formats import Input
from models.rows import Rows

CODES: dict[FormatName, RowCode] = {"float32": Float32Code(), "bf16": Bf16Code(), "int8": Int8Code(), "int4": Int4Code()}

Block = np.ndarray  # one record: what kernels see at its address


class Known(NamedTuple):
    """A matrix's block, its address, and the bytes of a token prepared for its products (0: as it is)."""

    block: Block
    address: int
    prepared_bytes: int


_BLOCKS: WeakKeyDictionary[Rows, Known] = WeakKeyDictionary()


def rows_block(rows: Rows) -> Block:
    """The ROWS block of a matrix; kept as long as the matrix is."""
    return known(rows).block


def rows_address(rows: Rows) -> int:
    """The address of its block."""
    return known(rows).address


def known(rows: Rows) -> Known:
    """What kernels need of a matrix; kept as long as the matrix is, and so as long as a tape that is recording."""
    found = _BLOCKS.get(keep(rows))
    if found is None:
        block = _describe(rows)
        found = _BLOCKS[rows] = Known(block, block.ctypes.data, int(block["prepared_bytes"][0]))
    return found


def _describe(rows: Rows) -> Block:
    weights, *scales = rows.planes
    code = CODES[rows.format.name]
    functions, _library = compiled(code)
    places = (*place(weights), *(place(scales[0]) if scales else (0, 0)))
    return np.array([(*functions, *places, len(rows), rows.k, code.raw_floats(rows.k), code.prepared_bytes(rows.k))], ROWS)


def place(plane: Tensor) -> tuple[int, int]:
    """Address of row 0, bytes from one row to the next. A row lies in one piece."""
    assert plane.device.type == "cpu", plane.device
    assert plane.shape[1] <= 1 or plane.stride(1) == 1, plane.stride()
    return plane.data_ptr(), plane.stride(0) * plane.element_size()


def indices_at(which: Tensor) -> int:
    """The address of int64 [n] in one piece."""
    assert which.dtype == torch.int64, which.dtype
    assert which.is_contiguous()
    return which.data_ptr()


def input_places(x: Input) -> tuple[int, int, int, int]:
    """The numbers of an INPUT block."""
    return *place(x.values), *((0, 0) if x.scales is None else place(x.scales))


def float_bits(value: float) -> int:
    """A float64 as one of a block's numbers."""
    return int(array("q", array("d", (value,)).tobytes())[0])


def check_meets(rows: Rows, x: Input) -> None:
    """Asserts that `x` is what the rows' format multiplies with: kernels read memory and check nothing."""
    assert x.values.shape[1] == rows.k, (x.values.shape, rows.k)
    grouped = BITS[rows.format.name].grouped
    assert x.values.dtype == (torch.int8 if grouped else torch.float32), x.values.dtype
    assert (x.scales is not None) == grouped, rows.format.name
