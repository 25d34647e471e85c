"""`embed` on the CPU."""

from torch import Tensor

from cpu_ops.describe import CODES, indices_at, rows_address
from cpu_ops.kernels.embed import embed as embed_kernel
from cpu_ops.tape import fresh, run
from models import layers
from models.rows import Rows


def embed(rows: Rows, which: Tensor) -> Tensor:
    """Rows of a matrix by index int64 [T] -> float32 [T, k]; NaN for an index that it does not have."""
    if rows.format.name not in CODES:
        return layers.embed(rows, which)
    out = fresh(len(which), rows.k)
    run(embed_kernel, rows_address(rows), indices_at(which), len(which), out.data_ptr())
    return out
