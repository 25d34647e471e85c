"""One pass over rows in each of the three forms, as a bank makes them: what memory gives to each. For measuring.

Dense: every row with a token, in order. Gathered: listed rows with a token. Axpy: listed rows added up, a few at a time.
"""

from typing import Any

import numpy as np

from cpu_ops.kernels.compile import inner, kernel
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import (
    INPUT,
    LISTED,
    address_of,
    axpys,
    block_at,
    list_row,
    longs_at,
    prepare_all,
    products,
    rows_at,
)

PARTS = 48
AT_ONCE = 8  # rows added in one go
AHEAD = 4  # rows asked for before they are multiplied
PRODUCTS, AXPY = range(2)

# `form`, the rows, the one vector of x and room for it prepared; which int64 [m]; out float32 [m] of products,
# or [PARTS, raw_floats] of sums; `times` the pass is made.
CALL = np.dtype([("rows", np.int64), ("x", INPUT)] + [(name, np.int64) for name in ("prepared", "form", "which", "m", "out", "times")])
call_at = block_at(CALL)


@inner
def _products(call: Any, rows: Any, first: int, last: int) -> None:
    which, listed = longs_at(call.which, call.m), np.empty((AT_ONCE, LISTED), np.int64)
    for begin in range(first, last, AT_ONCE):
        count = min(AT_ONCE, last - begin)
        for place in range(count):
            row, later = which[begin + place], which[min(begin + place + AHEAD, last - 1)]
            list_row(rows, listed, place, row, (later - row) * rows.weights_stride)
        products(rows, address_of(listed), count, call.prepared, 0, 1, call.out + 4 * begin, (4, 0))


@inner
def _axpy(call: Any, rows: Any, first: int, last: int, raw: int) -> None:
    which, factors = longs_at(call.which, call.m), np.ones(AT_ONCE, np.float32)
    listed = np.empty((AT_ONCE, LISTED), np.int64)
    for begin in range(first, last, AT_ONCE):
        count = min(AT_ONCE, last - begin)
        for place in range(count):
            row, later = which[begin + place], which[min(begin + place + AT_ONCE, last - 1)]
            list_row(rows, listed, place, row, (later - row) * rows.weights_stride)
        axpys(rows, address_of(listed), address_of(factors), count, raw)


@inner
def _pass_part(address: int, part: int) -> None:
    call = call_at(address)
    rows = rows_at(call.rows)
    first, last = part * call.m // PARTS, (part + 1) * call.m // PARTS
    if call.form == PRODUCTS:
        _products(call, rows, first, last)
    else:
        _axpy(call, rows, first, last, call.out + part * rows.raw_floats * 4)


@kernel
def passes(address: int) -> None:
    """Makes the pass of the CALL at an address."""
    call = call_at(address)
    rows = rows_at(call.rows)
    for _ in range(call.times):
        prepare_all(rows, call.x, 1, call.prepared, 0)
        in_parallel(_pass_part, address, PARTS)
