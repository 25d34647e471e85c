"""The naked loops of a bank's FFN on few tokens: (predict,) gate, select, up, down in one parallel region, a merge in a second.

Neurons are dealt in runs to parts, each with raw sums of its own; the parts are merged in their order. So a token's bits
depend on the bank alone: not on the threads, not on the other tokens of the call.
"""

from typing import Any

import numpy as np
from numba import types

from cpu_ops.kernels.activation import GATED_BOTH, LANES, PLAIN, SILU, activated, silu_all
from cpu_ops.kernels.compile import SERIAL_WEIGHTS, inner, kernel, native
from cpu_ops.kernels.region import in_parallel, use_threads
from cpu_ops.kernels.rows import (
    IN_ORDER,
    INPUT,
    LISTED,
    ROWS,
    address_of,
    alive,
    ask,
    axpys,
    block_at,
    floats_at,
    list_row,
    prepare_all,
    products,
    settle,
    weights_of,
)
from cpu_ops.kernels.sums import add_parts

Floats = np.ndarray[Any, np.dtype[np.float32]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

PARTS = 24  # at most: 2, 3, 4, 6, 8 and 12 threads get equal shares, and merging costs 2 % of a 7B layer's bytes
RUN = 64  # neurons dealt at once, at most: hot neurons come first, so longer runs would give one thread all the work
AHEAD = 4  # rows of `first` that are asked for before they are read
BLOCK = 64  # neurons looked at before what they ask for is read: a whole run, which memory gives faster than pieces of 16
LEAST = 64  # neurons of a part
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
    return max(1, min(PARTS, neurons // LEAST))


def run_of(neurons: int) -> int:
    """How many neurons are dealt at once, so that every part gets as many runs."""
    parts = parts_of(neurons)
    return -(-neurons // (parts * -(-neurons // (parts * RUN))))


@inner
def _predict(bank: Any, call: Any, part: int, chosen: Indices, marks: Indices) -> int:
    """The part's neurons that are predicted to fire for some token, and for which: bit t of a mark is token t."""
    tokens, count = call.tokens, 0
    scores, listed = np.empty((BLOCK, tokens), np.float32), np.empty((BLOCK, LISTED), np.int64)
    for run in range(part * bank.run, bank.n, call.parts * bank.run):
        for begin in range(run, min(run + bank.run, bank.n), BLOCK):
            end = min(begin + BLOCK, run + bank.run, bank.n)
            for i in range(begin, end):
                list_row(bank.outward, listed, i - begin, i, IN_ORDER * bank.outward.weights_stride)
            there = call.inside_prepared, call.inside_stride
            products(bank.outward, address_of(listed), end - begin, *there, tokens, address_of(scores), (4 * tokens, 4))
            for i in range(begin, end):
                mark = np.int64(0)
                for token in range(tokens):
                    mark |= np.int64(scores[i - begin, token] >= bank.predicted_from) << token
                chosen[count], marks[count] = i, mark
                count += mark != 0
    alive(listed)
    alive(scores)
    return count


@inner
def _after_first(bank: Any) -> Any:
    """The rows that are read of a neuron that passes."""
    return bank.down if bank.kind == PLAIN else bank.second


@inner
def _select(bank: Any, call: Any, chosen: Indices, marks: Indices, begin: int, end: int, room: Any, h: Floats, passed: Indices) -> int:
    """Activations of `first` for chosen[begin:end]; those that pass for some token are kept, and what is read next asked for."""
    tokens, count, last, listed = call.tokens, 0, len(chosen) - 1, room[0]
    smooth, after = bank.activation >= SILU, _after_first(bank)
    for place in range(begin, end):
        i = chosen[place]
        far = (chosen[min(place + AHEAD, last)] - i) * bank.first.weights_stride
        list_row(bank.first, listed, place - begin, i, weights_of(after, i) - weights_of(bank.first, i) if smooth else far)
    there = call.prepared, call.prepared_stride
    products(bank.first, address_of(listed), end - begin, *there, tokens, address_of(h), (4 * tokens, 4))
    _activate_all(bank, chosen, begin, end, tokens, h)
    for place in range(end - begin):
        i, mark, passes = chosen[begin + place], marks[begin + place], False
        for token in range(tokens):
            value = h[place, token] if (mark >> token) & 1 else np.float32(0.0)
            h[count, token] = value
            passes |= value != 0
        if passes:
            if not smooth:
                ask(after, i)
            passed[count] = i
            count += 1
    return count


@inner
def _activate_all(bank: Any, chosen: Indices, begin: int, end: int, tokens: int, h: Floats) -> None:
    """h[place] = the activation of h[place] + the bias of neuron chosen[begin + place]."""
    activation, threshold, values = bank.activation, np.float32(bank.threshold), (end - begin) * tokens
    if bank.first_bias != 0:
        bias = floats_at(bank.first_bias, bank.n)
        for place in range(end - begin):
            for token in range(tokens):
                h[place, token] += bias[chosen[begin + place]]
    if activation == SILU:
        silu_all(address_of(h), (values + LANES - 1) // LANES)
        return
    flat = floats_at(address_of(h), values)
    for place in range(values):
        flat[place] = activated(flat[place], activation, threshold)


@inner
def _multiply(bank: Any, call: Any, h: Floats, passed: Indices, count: int, room: Any) -> None:
    """h *= up (or its activation) for the tokens where the gate passed."""
    tokens, (listed, z, _, _) = call.tokens, room
    activation, threshold, both = bank.activation, np.float32(bank.threshold), bank.kind == GATED_BOTH
    sparse = both and activation < SILU
    beside = bank.down.weights - bank.second.weights
    for place in range(count):
        list_row(bank.second, listed, place, passed[place], 0 if sparse else beside)
    if tokens == 1:
        products(bank.second, address_of(listed), count, call.prepared, 0, 1, address_of(z), (4, 4))
    else:
        for place in range(count):
            _second(bank, call, address_of(listed) + 8 * LISTED * place, h[place], address_of(z) + 4 * tokens * place)
    for place in range(count):
        i = passed[place]
        bias = floats_at(bank.second_bias, bank.n)[i] if bank.second_bias != 0 else np.float32(0.0)
        fires = False
        for token in range(tokens):
            if h[place, token] != 0:
                up = z[place * tokens + token] + bias
                h[place, token] *= activated(up, activation, threshold) if both else up
                fires |= h[place, token] != 0
        if fires and sparse:
            ask(bank.down, i)


@inner
def _second(bank: Any, call: Any, row: int, h: Floats, z: int) -> None:
    """A listed row of `second` with the tokens that h float32 [T] does not silence: all at once where most are, else one by one."""
    tokens, wanted, stride = call.tokens, 0, call.prepared_stride
    for token in range(tokens):
        wanted += h[token] != 0
    if 2 * wanted > tokens:
        products(bank.second, row, 1, call.prepared, stride, tokens, z, (0, 4))
        return
    for token in range(tokens):
        if h[token] != 0:
            products(bank.second, row, 1, call.prepared + token * stride, stride, 1, z + 4 * token, (0, 4))


@inner
def _flush(bank: Any, token: int, rows: Indices, factors: Floats, count: int, raw: int) -> None:
    axpys(bank.down, address_of(rows) + token * ROOM * 8 * LISTED, address_of(factors) + token * ROOM * 4, count, raw)


@inner
def _flush_most(bank: Any, token: int, rows: Indices, factors: Floats, waiting: int, raw: int, chosen: Indices, later: int) -> int:
    """Adds as many times WAITING as there are; the others move to the front, and are how many still wait.

    Meanwhile what `first` reads later is asked for: the rows of chosen[later], …
    """
    ready = waiting // WAITING * WAITING
    if ready == 0:
        return waiting
    if token == 0:
        for place in range(ready):
            there = weights_of(bank.first, chosen[min(later + place, len(chosen) - 1)])
            rows[token, place, 2] = there - rows[token, place, 0]
    _flush(bank, token, rows, factors, ready, raw)
    for place in range(waiting - ready):
        rows[token, place], factors[token, place] = rows[token, ready + place], factors[token, ready + place]
    return waiting - ready


@inner
def _queue_down(bank: Any, h: Floats, passed: Indices, count: int, token: int, rows: Indices, factors: Floats, waiting: int) -> int:
    """Appends the neurons that fire for a token to its rows of `down` that wait to be added."""
    for place in range(count):
        if h[place, token] != 0:
            list_row(bank.down, rows[token], waiting, passed[place], 0)
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
    chosen = chosen[:found]
    later = BLOCK if bank.activation >= SILU else BLOCK + AHEAD
    room = room_for(tokens)
    _, _, rows, factors = room
    h, passed = np.empty((2, BLOCK, tokens), np.float32), np.empty((2, BLOCK), np.int64)
    counts, waiting = np.zeros(2, np.int64), np.zeros(tokens, np.int64)
    for first in range(0, found + BLOCK, BLOCK):
        now, before = first // BLOCK % 2, (first // BLOCK + 1) % 2
        last = min(first + BLOCK, found)
        counts[now] = _select(bank, call, chosen, marks, first, last, room, h[now], passed[now]) if first < last else 0
        if bank.kind != PLAIN:
            _multiply(bank, call, h[before], passed[before], counts[before], room)
        for token in range(tokens):
            waits = _queue_down(bank, h[before], passed[before], counts[before], token, rows, factors, waiting[token])
            waiting[token] = _flush_most(bank, token, rows, factors, waits, sums + token * raw_bytes, chosen, first + later)
    for token in range(tokens):
        _flush(bank, token, rows, factors, waiting[token], sums + token * raw_bytes)
    alive(h)
    alive(rows)
    alive(factors)


@inner
def room_for(tokens: int) -> Any:
    """Room for a block's rows, listed, and their products; and for the rows of `down` that wait, and their factors."""
    listed, z = np.empty((BLOCK, LISTED), np.int64), np.empty(BLOCK * tokens, np.float32)
    return listed, z, np.empty((tokens, ROOM, LISTED), np.int64), np.empty((tokens, ROOM), np.float32)


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
    add_parts(call.sums, 4 * size, call.parts, piece * size // PIECES, (piece + 1) * size // PIECES)


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
