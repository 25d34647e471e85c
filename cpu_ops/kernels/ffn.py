"""The naked loops of a bank's FFN on few tokens: (predict,) gate, select, up, down in one parallel region, a merge in a second.

Neurons are dealt in runs to parts, each with raw sums of its own; the parts are merged in their order. So a token's bits
depend on the bank alone: not on the threads, not on the other tokens of the call.
"""

from typing import Any

import numpy as np
from numba import types

from cpu_ops.kernels.activation import GATED, GATED_BOTH, PLAIN, activate
from cpu_ops.kernels.compile import SERIAL_WEIGHTS, inner, kernel, native
from cpu_ops.kernels.region import in_parallel, use_threads
from cpu_ops.kernels.rows import (
    IN_ORDER,
    INPUT,
    ROWS,
    address_of,
    ask,
    axpys,
    block_at,
    floats_at,
    prepare_all,
    products,
    scales_of,
    settle,
    weights_of,
)

Floats = np.ndarray[Any, np.dtype[np.float32]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

PARTS = 24  # at most: 2, 3, 4, 6, 8 and 12 threads get equal shares, and merging costs 2 % of a 7B layer's bytes
RUN = 64  # neurons dealt at once, at most: hot neurons come first, so longer runs would give one thread all the work
BLOCK = 16  # neurons looked at before what they ask for is read
WAITING = 8  # rows of `down` that are added in one go
ROOM = WAITING + BLOCK
PIECES = 24  # of the merge

# A bank and its rule, described once. `first` decides whether a neuron fires: gate, or up when there is no gate (then `second`
# is not read). Biases are addresses of float32 [n], or 0. `outward` are the predictor's rows, its n 0 where there is none.
BANK = np.dtype(
    [("first", ROWS), ("second", ROWS), ("down", ROWS), ("outward", ROWS)]
    + [(name, np.int64) for name in ("first_bias", "second_bias", "n", "run", "kind", "activation")]
    + [("threshold", np.float64), ("predicted_from", np.float64)]
)
# One call: the bank's block; x and what the predictor multiplies with, and where both are laid out for `products`; raw sums float32
# [parts, tokens, raw]; out float32 [tokens, k].
CALL = np.dtype(
    [("bank", np.int64), ("x", INPUT), ("inside", INPUT)]
    + [(name, np.int64) for name in ("prepared", "prepared_stride", "inside_prepared", "inside_stride")]
    + [(name, np.int64) for name in ("tokens", "parts", "sums", "out", "threads")]
)
bank_at, call_at = block_at(BANK), block_at(CALL)


def parts_of(neurons: int) -> int:
    """How many parts a bank is dealt to."""
    return max(1, min(PARTS, neurons // (4 * BLOCK)))


def run_of(neurons: int) -> int:
    """How many neurons are dealt at once, so that every part gets as many runs."""
    parts = parts_of(neurons)
    return -(-neurons // (parts * -(-neurons // (parts * RUN))))


@inner
def _predict(bank: Any, call: Any, part: int, chosen: Indices, marks: Indices) -> int:
    """The part's neurons that are predicted to fire for some token, and for which: bit t of a mark is token t."""
    scores = np.empty(call.tokens, np.float32)
    count = 0
    for begin in range(part * bank.run, bank.n, call.parts * bank.run):
        for i in range(begin, min(begin + bank.run, bank.n)):
            products(bank.outward, i, IN_ORDER, call.inside_prepared, call.inside_stride, call.tokens, address_of(scores), 4)
            mark = np.int64(0)
            for token in range(call.tokens):
                mark |= np.int64(scores[token] >= bank.predicted_from) << token
            chosen[count], marks[count] = i, mark
            count += mark != 0
    return count


@inner
def _select(bank: Any, call: Any, chosen: Indices, marks: Indices, begin: int, end: int, ahead: int, h: Floats, passed: Indices) -> int:
    """Activations of `first` for chosen[begin:end]; those that pass for some token are kept, and what is read next asked for."""
    tokens, count, last = call.tokens, 0, len(chosen) - 1
    for place in range(begin, end):
        i, mark = chosen[place], marks[place]
        far = (chosen[min(place + ahead, last)] - i) * bank.first.weights_stride
        products(bank.first, i, far, call.prepared, call.prepared_stride, tokens, address_of(h) + count * tokens * 4, 4)
        bias = floats_at(bank.first_bias, bank.n)[i] if bank.first_bias != 0 else np.float32(0.0)
        passes = False
        for token in range(tokens):
            h[count, token] = activate(h[count, token] + bias, bank) if (mark >> token) & 1 else np.float32(0.0)
            passes |= h[count, token] != 0
        if passes:
            ask(bank.down if bank.kind == PLAIN else bank.second, i)
            passed[count] = i
            count += 1
    return count


@inner
def _multiply(bank: Any, call: Any, h: Floats, passed: Indices, count: int) -> None:
    """h *= up (or its activation) for the tokens where the gate passed."""
    tokens = call.tokens
    z = np.empty(tokens, np.float32)
    for place in range(count):
        i = passed[place]
        _second(bank, call, i, 0 if bank.kind == GATED_BOTH else bank.down.weights - bank.second.weights, h[place], address_of(z))
        bias = floats_at(bank.second_bias, bank.n)[i] if bank.second_bias != 0 else np.float32(0.0)
        fires = False
        for token in range(tokens):
            if h[place, token] != 0:
                up = z[token] + bias
                h[place, token] *= up if bank.kind == GATED else activate(up, bank)
                fires |= h[place, token] != 0
        if fires and bank.kind == GATED_BOTH:
            ask(bank.down, i)


@inner
def _second(bank: Any, call: Any, i: int, far: int, h: Floats, z: int) -> None:
    """Row i of `second` with the tokens that h float32 [T] does not silence: all at once where most are, else one by one."""
    tokens, wanted = call.tokens, 0
    for token in range(tokens):
        wanted += h[token] != 0
    if 2 * wanted > tokens:
        products(bank.second, i, far, call.prepared, call.prepared_stride, tokens, z, 4)
        return
    for token in range(tokens):
        if h[token] != 0:
            products(bank.second, i, far, call.prepared + token * call.prepared_stride, call.prepared_stride, 1, z + 4 * token, 4)


@inner
def _flush(bank: Any, token: int, rows: Indices, factors: Floats, count: int, raw: int) -> None:
    axpys(bank.down, address_of(rows) + token * ROOM * 16, address_of(factors) + token * ROOM * 4, count, raw)


@inner
def _queue_down(bank: Any, h: Floats, passed: Indices, count: int, token: int, rows: Indices, factors: Floats, waiting: int) -> int:
    """Appends the neurons that fire for a token to its rows of `down` that wait to be added."""
    for place in range(count):
        if h[place, token] != 0:
            rows[token, waiting, 0] = weights_of(bank.down, passed[place])
            rows[token, waiting, 1] = scales_of(bank.down, passed[place])
            factors[token, waiting] = h[place, token]
            waiting += 1
    return waiting


@inner
def _ffn_part(address: int, part: int) -> None:
    """sums[part, T, raw] = what the part's neurons add."""
    call = call_at(address)
    bank, tokens = bank_at(call.bank), call.tokens
    raw_bytes = 4 * bank.down.raw_floats
    sums = call.sums + part * tokens * raw_bytes
    floats_at(sums, tokens * bank.down.raw_floats)[:] = 0
    own = (bank.n // (bank.run * call.parts) + 1) * bank.run
    chosen, marks = np.empty(own, np.int64), np.empty(own, np.int64)
    found = _predict(bank, call, part, chosen, marks) if bank.outward.n > 0 else _deal(bank, call, part, chosen, marks)
    h, passed = np.empty((BLOCK, tokens), np.float32), np.empty(BLOCK, np.int64)
    rows, factors = np.empty((tokens, ROOM, 2), np.int64), np.empty((tokens, ROOM), np.float32)
    waiting = np.zeros(tokens, np.int64)
    ahead = IN_ORDER // bank.first.weights_stride + 1
    for first in range(0, found, BLOCK):
        count = _select(bank, call, chosen[:found], marks, first, min(first + BLOCK, found), ahead, h, passed)
        if bank.kind != PLAIN:
            _multiply(bank, call, h, passed, count)
        for token in range(tokens):
            waiting[token] = _queue_down(bank, h, passed, count, token, rows, factors, waiting[token])
            if waiting[token] >= WAITING:
                _flush(bank, token, rows, factors, waiting[token], sums + token * raw_bytes)
                waiting[token] = 0
    for token in range(tokens):
        _flush(bank, token, rows, factors, waiting[token], sums + token * raw_bytes)


@inner
def _deal(bank: Any, call: Any, part: int, chosen: Indices, marks: Indices) -> int:
    """All of the part's neurons, for all tokens."""
    count = 0
    for begin in range(part * bank.run, bank.n, call.parts * bank.run):
        for i in range(begin, min(begin + bank.run, bank.n)):
            chosen[count], marks[count] = i, -1
            count += 1
    return count


@inner
def _merge_piece(address: int, piece: int) -> None:
    """The parts' raw sums, added in their order to the first part's, in a piece of the columns."""
    call = call_at(address)
    size = call.tokens * bank_at(call.bank).down.raw_floats
    sums = floats_at(call.sums, call.parts * size)
    for part in range(1, call.parts):
        for column in range(piece * size // PIECES, (piece + 1) * size // PIECES):
            sums[column] += sums[part * size + column]


@kernel
def ffn(address: int) -> None:
    """Fills `out` of the CALL at an address: what the neurons of its bank add."""
    call = call_at(address)
    bank = bank_at(call.bank)
    prepare_all(bank.first, call.x, call.tokens, call.prepared, call.prepared_stride)
    prepare_all(bank.outward, call.inside, call.tokens, call.inside_prepared, call.inside_stride)
    if bank.n * bank.down.k * call.tokens <= SERIAL_WEIGHTS:
        for part in range(call.parts):
            _ffn_part(address, part)
        for piece in range(PIECES):
            _merge_piece(address, piece)
    else:
        in_parallel(_ffn_part, address, call.parts)
        in_parallel(_merge_piece, address, PIECES)
    for token in range(call.tokens):
        settle(bank.down, call.sums + token * bank.down.raw_floats * 4, call.out + token * bank.down.k * 4)


def _ffn_native(address: int) -> None:
    use_threads(call_at(address).threads)
    ffn(address)


ffn_pointer = native(types.void(types.int64), _ffn_native)
