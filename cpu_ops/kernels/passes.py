"""One pass over listed rows, as a bank makes them: their products with a token, or their sum. For tests and for measuring."""

from typing import Any

import numpy as np

from cpu_ops.kernels.compile import inner, kernel
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import (
    INPUT,
    LISTED,
    address_of,
    alive,
    axpys,
    block_at,
    list_row,
    longs_at,
    prepare_all,
    products,
    rows_at,
    settle,
)
from cpu_ops.kernels.sums import add_parts

PARTS = 48
AT_ONCE = 8  # rows taken in one call
AHEAD = 4  # rows asked for before they are multiplied
PRODUCTS, SUM = range(2)

# `form`, the rows, the one vector of x and room for it prepared; which int64 [m]; raw sums float32 [PARTS, raw_floats], zeros;
# out float32 [m] of products or [k] of the sum.
CALL = np.dtype([("rows", np.int64), ("x", INPUT)] + [(name, np.int64) for name in ("prepared", "form", "which", "m", "sums", "out")])
call_at = block_at(CALL)


@inner
def _multiply_part(address: int, part: int) -> None:
    call = call_at(address)
    rows, which, listed = rows_at(call.rows), longs_at(call.which, call.m), np.empty((AT_ONCE, LISTED), np.int64)
    last = (part + 1) * call.m // PARTS
    for begin in range(part * call.m // PARTS, last, AT_ONCE):
        count = min(AT_ONCE, last - begin)
        for place in range(count):
            row, later = which[begin + place], which[min(begin + place + AHEAD, last - 1)]
            list_row(rows, address_of(listed), place, row, (later - row) * rows.weights_stride)
        products(rows, address_of(listed), count, call.prepared, 0, 1, call.out + 4 * begin, (4, 0))
    alive(listed)


@inner
def _add_part(address: int, part: int) -> None:
    call = call_at(address)
    rows, which, listed = rows_at(call.rows), longs_at(call.which, call.m), np.empty((AT_ONCE, LISTED), np.int64)
    factors, last = np.ones(AT_ONCE, np.float32), (part + 1) * call.m // PARTS
    for begin in range(part * call.m // PARTS, last, AT_ONCE):
        count = min(AT_ONCE, last - begin)
        for place in range(count):
            row, later = which[begin + place], which[min(begin + place + AT_ONCE, last - 1)]
            list_row(rows, address_of(listed), place, row, (later - row) * rows.weights_stride)
        axpys(rows, address_of(listed), address_of(factors), count, call.sums + 4 * part * rows.raw_floats)
    alive(listed)
    alive(factors)


@kernel
def passes(address: int) -> None:
    """Makes the pass of the CALL at an address."""
    call = call_at(address)
    rows: Any = rows_at(call.rows)
    if call.form == PRODUCTS:
        prepare_all(rows, call.x, 1, call.prepared, 0)
        in_parallel(_multiply_part, address, PARTS)
    else:
        in_parallel(_add_part, address, PARTS)
        add_parts(call.sums, 4 * rows.raw_floats, PARTS, 0, rows.raw_floats)
        settle(rows, call.sums, call.out)
