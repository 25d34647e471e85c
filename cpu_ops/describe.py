"""From tensors to what kernels take: addresses and strides. Whoever calls keeps the tensors alive until the kernel returns."""

import numpy as np
from torch import Tensor

from cpu_ops.kernels.bf16 import Bf16Code
from cpu_ops.kernels.float32 import Float32Code
from cpu_ops.kernels.int4 import Int4Code
from cpu_ops.kernels.int8 import Int8Code
from cpu_ops.kernels.linear import Floats
from cpu_ops.kernels.row_code import RowCode, compiled
from cpu_ops.kernels.rows import KernelInput, KernelRows
from models.bits import BITS, FormatName
from models.formats import Input
from models.rows import Rows

CODES: dict[FormatName, RowCode] = {"float32": Float32Code(), "bf16": Bf16Code(), "int8": Int8Code(), "int4": Int4Code()}


def kernel_rows(rows: Rows) -> KernelRows:
    weights, *scales = rows.planes
    functions, _library = compiled(CODES[rows.format.name])
    return KernelRows(*functions, *_place(weights), *(_place(scales[0]) if scales else (0, 0)))


def _place(plane: Tensor) -> tuple[int, int]:
    """Address of row 0, bytes from one row to the next. A row lies in one piece."""
    assert plane.device.type == "cpu", plane.device
    assert plane.shape[1] <= 1 or plane.stride(1) == 1, plane.stride()
    return plane.data_ptr(), plane.stride(0) * plane.element_size()


def kernel_input(x: Input) -> KernelInput:
    return KernelInput(*_place(x.values), *((0, 0) if x.scales is None else _place(x.scales)))


def check_meets(rows: Rows, x: Input) -> None:
    """Asserts that `x` is what the rows' format multiplies with: kernels read memory and check nothing."""
    assert x.values.shape[1] == rows.k, (x.values.shape, rows.k)
    assert (x.scales is not None) == BITS[rows.format.name].grouped, rows.format.name


def bias_array(bias: Tensor | None) -> Floats:
    """The bias, or an empty array for none."""
    return np.empty(0, np.float32) if bias is None else bias.contiguous().numpy()
