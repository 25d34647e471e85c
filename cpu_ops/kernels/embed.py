"""The naked loop that looks rows up: those named by an index, as float32."""

import numpy as np

from cpu_ops.kernels.compile import SERIAL_WEIGHTS, inner, kernel
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import LISTED, address_of, alive, axpys, block_at, floats_at, list_row, longs_at, rows_at, settle

# out float32 [count, k] = rows[which]; which int64 [count].
CALL = np.dtype([(name, np.int64) for name in ("rows", "which", "count", "out")])
call_at = block_at(CALL)


@inner
def _embed_one(address: int, place: int) -> None:
    """The row as raw sums of itself; NaN where there is no such row, so that a wrong index is seen and reads nothing."""
    call = call_at(address)
    rows = rows_at(call.rows)
    i, out = longs_at(call.which, call.count)[place], call.out + place * rows.k * 4
    if i < 0 or i >= rows.n:
        floats_at(out, rows.k)[:] = np.nan
        return
    raw = np.zeros(rows.raw_floats, np.float32)
    listed, one = np.empty((1, LISTED), np.int64), np.ones(1, np.float32)
    list_row(rows, address_of(listed), 0, i, 0)
    axpys(rows, address_of(listed), address_of(one), 1, address_of(raw))
    settle(rows, address_of(raw), out)
    alive(listed)
    alive(one)
    alive(raw)


@kernel
def embed(address: int) -> None:
    """Fills `out` of the CALL at an address."""
    call = call_at(address)
    if call.count * rows_at(call.rows).k <= SERIAL_WEIGHTS:
        for place in range(call.count):
            _embed_one(address, place)
    else:
        in_parallel(_embed_one, address, call.count)
