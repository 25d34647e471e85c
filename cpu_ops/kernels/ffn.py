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
    longs_at,
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
BLOCK = 128  # neurons looked at before those that pass are read
TOGETHER = 4  # of which `second` and `down` are read in turn: with the next ones, that were asked for meanwhile, they fit the first cache
LEAST = 64  # neurons of a part
WAITING = 4  # rows of `down` that are added in one go
STRIDE = 41  # prime: neighbouring runs, as hot as each other, go to distant parts, which other threads have
QUEUE = WAITING + BLOCK
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
def _runs(bank: Any, call: Any) -> Any:
    """How many runs a part is dealt."""
    return (bank.n + bank.run * call.parts - 1) // (bank.run * call.parts)


@inner
def _run(bank: Any, call: Any, part: int, number: int) -> Any:
    """The neurons of a part's run, first and last. Every other round is dealt backwards: hot neurons come first."""
    place = part * STRIDE % call.parts
    if number % 2 == 1:
        place = call.parts - 1 - place
    first = min((number * call.parts + place) * bank.run, bank.n)
    return first, min(first + bank.run, bank.n)


@inner
def _deal(bank: Any, call: Any, part: int, chosen: Indices, marks: Indices) -> int:
    """All of the part's neurons, for all tokens."""
    count = 0
    for number in range(_runs(bank, call)):
        first, last = _run(bank, call, part, number)
        for i in range(first, last):
            chosen[count], marks[count] = i, -1
            count += 1
    return count


@inner
def _predict(bank: Any, call: Any, part: int, chosen: Indices, marks: Indices) -> int:
    """The part's neurons that are predicted to fire for some token, and for which: bit t of a mark is token t."""
    tokens, count = call.tokens, 0
    scores, listed = np.empty((BLOCK, tokens), np.float32), np.empty((BLOCK, LISTED), np.int64)
    for number in range(_runs(bank, call)):
        first, last = _run(bank, call, part, number)
        for begin in range(first, last, BLOCK):
            end = min(begin + BLOCK, last)
            for i in range(begin, end):
                list_row(bank.outward, address_of(listed), i - begin, i, IN_ORDER * bank.outward.weights_stride)
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


# A part's working memory, by addresses: an array that is handed on is counted, with locked instructions, once a call.
LISTS, HS, PASSED, LATER, ROWS_WAITING, FACTORS, ZS = range(7)
BLOCK_LISTS = 8 * LISTED * BLOCK


@inner
def _room(tokens: int, start: int) -> Any:
    """Addresses: a block's rows, listed; h float32 [2, BLOCK, T] of a block and the one before; which neurons passed, int64 [2, BLOCK], and
    which are read later; the rows of `down` that wait, and their factors, [T, QUEUE]; products of a block."""
    listed = start
    h = listed + BLOCK_LISTS
    passed = h + 2 * 4 * BLOCK * tokens
    later = passed + 2 * 8 * BLOCK
    rows = later + 8 * BLOCK
    factors = rows + 8 * LISTED * QUEUE * tokens
    return listed, h, passed, later, rows, factors, factors + 4 * QUEUE * tokens


@inner
def _room_bytes(tokens: int) -> int:
    return BLOCK_LISTS + 3 * 8 * BLOCK + tokens * (3 * 4 * BLOCK + (8 * LISTED + 4) * QUEUE)


@inner
def _select(bank: Any, call: Any, chosen: int, marks: int, found: int, begin: int, end: int, room: Any, now: int) -> int:
    """Activations of `first` for chosen[begin:end]; those that pass for some token are kept. Several tokens have much to compute meanwhile:
    then what is read next is asked for at once."""
    tokens, count, last, listed = call.tokens, 0, found - 1, room[LISTS]
    which, for_whom = longs_at(chosen, found), longs_at(marks, found)
    there = room[HS] + 4 * BLOCK * tokens * now
    h, passed = floats_at(there, BLOCK * tokens), longs_at(room[PASSED] + 8 * BLOCK * now, BLOCK)
    at_once, after = tokens > 1 and bank.activation >= SILU, bank.down if bank.kind == PLAIN else bank.second
    for place in range(begin, end):
        i = which[place]
        far = (which[min(place + AHEAD, last)] - i) * bank.first.weights_stride
        list_row(bank.first, listed, place - begin, i, weights_of(after, i) - weights_of(bank.first, i) if at_once else far)
    products(bank.first, listed, end - begin, call.prepared, call.prepared_stride, tokens, there, (4 * tokens, 4))
    _activate_all(bank, chosen + 8 * begin, end - begin, tokens, there)
    ask_soon = tokens > 1 and not at_once
    for place in range(end - begin):
        i, mark, passes = which[begin + place], for_whom[begin + place], False
        for token in range(tokens):
            value = h[place * tokens + token] if (mark >> token) & 1 else np.float32(0.0)
            h[count * tokens + token] = value
            passes |= value != 0
        if passes:
            if ask_soon:
                ask(after, i)
            passed[count] = i
            count += 1
    return count


@inner
def _activate_all(bank: Any, chosen: int, count: int, tokens: int, h: int) -> None:
    """h[place] = the activation of h[place] + the bias of neuron chosen[place]; both are addresses."""
    activation, threshold, values = bank.activation, np.float32(bank.threshold), count * tokens
    flat = floats_at(h, values)
    if bank.first_bias != 0:
        bias, which = floats_at(bank.first_bias, bank.n), longs_at(chosen, count)
        for place in range(count):
            for token in range(tokens):
                flat[place * tokens + token] += bias[which[place]]
    if activation == SILU:
        silu_all(h, (values + LANES - 1) // LANES)
        return
    for place in range(values):
        flat[place] = activated(flat[place], activation, threshold)


@inner
def _list_later(room: Any, before: int, count: int, now: int, following: int) -> None:
    """later[place]: the neuron that is read TOGETHER places after passed[before, place], of which there are `count`; behind the last of the
    next block's, that one itself."""
    passed, after = longs_at(room[PASSED] + 8 * BLOCK * before, BLOCK), longs_at(room[PASSED] + 8 * BLOCK * now, BLOCK)
    later = longs_at(room[LATER], BLOCK)
    for place in range(count):
        beyond = place + TOGETHER - count
        if beyond < 0:
            later[place] = passed[place + TOGETHER]
        else:
            later[place] = after[beyond] if beyond < following else passed[place]


@inner
def _ahead(bank: Any, later: Indices, begin: int, number: int) -> Any:
    """Where the number-th row lies of those that later[begin], … read, `second` and `down` in turn: they lie side by side."""
    if bank.kind == PLAIN:
        return weights_of(bank.down, later[begin + number])
    i = later[begin + number // 2]
    return weights_of(bank.down, i) if number % 2 == 1 else weights_of(bank.second, i)


@inner
def _multiply(bank: Any, call: Any, room: Any, before: int, begin: int, end: int) -> None:
    """h[begin:end] *= up (or its activation) for the tokens where the gate passed."""
    tokens, listed, products_at = call.tokens, room[LISTS], room[ZS]
    activation, threshold, both = bank.activation, np.float32(bank.threshold), bank.kind == GATED_BOTH
    passed, later = longs_at(room[PASSED] + 8 * BLOCK * before, BLOCK), longs_at(room[LATER], BLOCK)
    h_at = room[HS] + 4 * BLOCK * tokens * before
    h, z = floats_at(h_at, BLOCK * tokens), floats_at(products_at, BLOCK * tokens)
    late, beside = both and activation < SILU, bank.down.weights - bank.second.weights
    for place in range(begin, end):
        i = passed[place]
        there = weights_of(bank.second, later[place]) if late else _ahead(bank, later, begin, place - begin)
        list_row(bank.second, listed, place - begin, i, there - weights_of(bank.second, i) if tokens == 1 else beside)
    if tokens == 1:
        products(bank.second, listed, end - begin, call.prepared, 0, 1, products_at, (4, 4))
    else:
        for place in range(end - begin):
            _second(bank, call, listed + 8 * LISTED * place, h_at + 4 * tokens * (begin + place), products_at + 4 * tokens * place)
    for place in range(begin, end):
        i = passed[place]
        bias = floats_at(bank.second_bias, bank.n)[i] if bank.second_bias != 0 else np.float32(0.0)
        fires = False
        for token in range(tokens):
            value = h[place * tokens + token]
            if value != 0:
                up = z[(place - begin) * tokens + token] + bias
                value *= activated(up, activation, threshold) if both else up
                h[place * tokens + token] = value
                fires |= value != 0
        if fires and late:
            ask(bank.down, i)


@inner
def _second(bank: Any, call: Any, row: int, h_at: int, z: int) -> None:
    """A listed row of `second` with the tokens that h float32 [T] does not silence: all at once where most are, else one by one."""
    tokens, wanted, stride = call.tokens, 0, call.prepared_stride
    h = floats_at(h_at, tokens)
    for token in range(tokens):
        wanted += h[token] != 0
    if 2 * wanted > tokens:
        products(bank.second, row, 1, call.prepared, stride, tokens, z, (0, 4))
        return
    for token in range(tokens):
        if h[token] != 0:
            products(bank.second, row, 1, call.prepared + token * stride, stride, 1, z + 4 * token, (0, 4))


@inner
def _queue_down(bank: Any, room: Any, before: int, begin: int, end: int, tokens: int, token: int, waiting: int) -> int:
    """Appends those of passed[begin:end] that fire for a token to its rows of `down` that wait to be added."""
    rows, factors = room[ROWS_WAITING] + 8 * LISTED * QUEUE * token, floats_at(room[FACTORS] + 4 * QUEUE * token, QUEUE)
    h = floats_at(room[HS] + 4 * BLOCK * tokens * before, BLOCK * tokens)
    passed, later = longs_at(room[PASSED] + 8 * BLOCK * before, BLOCK), longs_at(room[LATER], BLOCK)
    read, late = 0 if bank.kind == PLAIN else end - begin, bank.kind == GATED_BOTH and bank.activation < SILU
    for place in range(begin, end):
        value = h[place * tokens + token]
        if value != 0:
            i = passed[place]
            far = 0 if late else _ahead(bank, later, begin, read + place - begin) - weights_of(bank.down, i)
            list_row(bank.down, rows, waiting, i, far)
            factors[waiting] = value
            waiting += 1
    return waiting


@inner
def _flush(bank: Any, room: Any, token: int, count: int, raw: int) -> None:
    axpys(bank.down, room[ROWS_WAITING] + 8 * LISTED * QUEUE * token, room[FACTORS] + 4 * QUEUE * token, count, raw)


@inner
def _flush_most(bank: Any, room: Any, token: int, waiting: int, raw: int) -> int:
    """Adds as many times WAITING as there are; the others move to the front, and are how many still wait."""
    ready = waiting // WAITING * WAITING
    if ready == 0:
        return waiting
    _flush(bank, room, token, ready, raw)
    if ready < waiting:
        rows = longs_at(room[ROWS_WAITING] + 8 * LISTED * QUEUE * token, LISTED * QUEUE)
        factors = floats_at(room[FACTORS] + 4 * QUEUE * token, QUEUE)
        for place in range(LISTED * (waiting - ready)):
            rows[place] = rows[LISTED * ready + place]
        for place in range(waiting - ready):
            factors[place] = factors[ready + place]
    return waiting - ready


@inner
def _ffn_part(address: int, part: int) -> None:
    """sums[part, T, raw] = what the part's neurons add."""
    call = call_at(address)
    bank, tokens = bank_at(call.bank), call.tokens
    raw_bytes = 4 * bank.down.raw_floats
    sums = call.sums + part * tokens * raw_bytes
    floats_at(sums, tokens * bank.down.raw_floats)[:] = 0
    own = _runs(bank, call) * bank.run
    chosen, marks, memory = np.empty(own, np.int64), np.empty(own, np.int64), np.empty(_room_bytes(tokens), np.uint8)
    waiting = np.zeros(tokens, np.int64)
    found = _predict(bank, call, part, chosen, marks) if bank.outward.n > 0 else _deal(bank, call, part, chosen, marks)
    _compute(bank, call, address_of(chosen), address_of(marks), found, _room(tokens, address_of(memory)), sums, address_of(waiting))
    alive(chosen)
    alive(marks)
    alive(memory)
    alive(waiting)


@inner
def _compute(bank: Any, call: Any, chosen: int, marks: int, found: int, room: Any, sums: int, waiting_at: int) -> None:
    """sums[T, raw] += what chosen[:found] add. waiting_at: int64 [T], zeros."""
    tokens, raw_bytes = call.tokens, 4 * bank.down.raw_floats
    waiting = longs_at(waiting_at, tokens)
    late = bank.kind == GATED_BOTH and bank.activation < SILU  # which rows of `down` are read is known late: they are added a block later
    step, before_count = BLOCK if late else TOGETHER, 0
    for first in range(0, found + BLOCK, BLOCK):
        now, before = first // BLOCK % 2, (first // BLOCK + 1) % 2
        last = min(first + BLOCK, found)
        count = _select(bank, call, chosen, marks, found, first, last, room, now) if first < last else 0
        _list_later(room, before, before_count, now, count)
        if late:
            for token in range(tokens):
                waiting[token] = _flush_most(bank, room, token, waiting[token], sums + token * raw_bytes)
        for begin in range(0, before_count, step):
            end = min(begin + step, before_count)
            if bank.kind != PLAIN:
                _multiply(bank, call, room, before, begin, end)
            for token in range(tokens):
                waiting[token] = _queue_down(bank, room, before, begin, end, tokens, token, waiting[token])
                if not late:
                    waiting[token] = _flush_most(bank, room, token, waiting[token], sums + token * raw_bytes)
        before_count = count
    for token in range(tokens):
        _flush(bank, room, token, waiting[token], sums + token * raw_bytes)


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
