"""What the neurons that passed add: their rows of `second` and of `down`, a few neurons in turn.

The rows of the next few are asked for meanwhile, one after the other: a neuron's two lie side by side, and memory gives one stream more
than several.
"""

from typing import Any

import numpy as np

from cpu_ops.kernels.activation import GATED_BOTH, PLAIN, SILU, activated
from cpu_ops.kernels.compile import inner
from cpu_ops.kernels.room import BLOCK, LISTED_BYTES, QUEUE, TOGETHER
from cpu_ops.kernels.rows import LISTED, ask, axpys, floats_at, list_row, longs_at, planes_of, products, weights_of


@inner
def decides_late(bank: Any) -> Any:
    """Which rows of `down` are read is known after `second` only: they are added a block later."""
    return bank.kind == GATED_BOTH and bank.activation < SILU


@inner
def ask_first(bank: Any, passed: int, room: Any) -> None:
    """The rows of those that will be read first: nothing before them asks."""
    which = longs_at(room.passed, passed)
    for place in range(min(TOGETHER, passed)):
        if bank.kind != PLAIN:
            ask(bank.second, which[place])
        ask(bank.down, which[place])


@inner
def add_pairs(bank: Any, call: Any, begin: int, end: int, known: int, room: Any, sums: int) -> None:
    """One token, gated: sums[raw] += h · (second · x) · down for passed[begin:end]; asked for are those up to `known`."""
    second, down, prepared = planes_of(bank.second), planes_of(bank.down), call.prepared
    h, which = floats_at(room.h, known), longs_at(room.passed, known)
    z, factors = floats_at(room.z, TOGETHER), floats_at(room.factors, TOGETHER)
    bias = floats_at(bank.second_bias, bank.n)
    for first in range(begin, end, TOGETHER):
        size, waiting = min(TOGETHER, end - first), 0
        for place in range(size):
            i = which[first + place]
            list_row(second, room.listed, place, i, _next_row(second, down, which, first, place, known) - weights_of(second, i))
        products(bank.second, room.listed, size, prepared, 0, 1, room.z, (4, 4))
        for place in range(size):
            i = which[first + place]
            up = z[place] + bias[i] if bank.second_bias != 0 else z[place]
            factors[waiting] = h[first + place] * up
            list_row(down, room.rows, waiting, i, _next_row(second, down, which, first, size + place, known) - weights_of(down, i))
            waiting += factors[waiting] != 0
        axpys(bank.down, room.rows, room.factors, waiting, sums)


@inner
def _next_row(second: Any, down: Any, which: Any, first: int, number: int, known: int) -> Any:
    """Where the number-th row lies of those that are read after which[first:first + TOGETHER]: `second`, `down`, `second`, …"""
    i = which[min(first + TOGETHER + number // 2, known - 1)]
    return weights_of(down, i) if number % 2 == 1 else weights_of(second, i)


@inner
def add_all(bank: Any, call: Any, begin: int, end: int, known: int, room: Any, sums: int) -> None:
    """sums[T, raw] += what passed[begin:end] add, but for the rows of `down` that still wait; those up to `known` may be asked for."""
    tokens, raw_bytes, late = call.tokens, 4 * bank.down.raw_floats, decides_late(bank)
    waiting = longs_at(room.waiting, tokens)
    if late:
        flush_all(bank, call, room, sums)
    step = BLOCK if late else TOGETHER
    for first in range(begin, end, step):
        last = min(first + step, end)
        if bank.kind != PLAIN:
            _multiply(bank, call, first, last, known, room)
        for token in range(tokens):
            waiting[token] = _queue_down(bank, tokens, token, first, last, known, room, waiting[token])
            if not late:
                waiting[token] = _flush_most(bank, room, token, waiting[token], sums + token * raw_bytes)


@inner
def flush_all(bank: Any, call: Any, room: Any, sums: int) -> None:
    """The rows that still wait."""
    waiting = longs_at(room.waiting, call.tokens)
    for token in range(call.tokens):
        _flush(bank, room, token, waiting[token], sums + token * 4 * bank.down.raw_floats)
        waiting[token] = 0


@inner
def _multiply(bank: Any, call: Any, begin: int, end: int, known: int, room: Any) -> None:
    """h[begin:end] *= up (or its activation) for the tokens where the gate passed."""
    tokens, passed, late = call.tokens, longs_at(room.passed, known), decides_late(bank)
    second, down = planes_of(bank.second), planes_of(bank.down)
    activation, threshold, both = bank.activation, np.float32(bank.threshold), bank.kind == GATED_BOTH
    h, z = floats_at(room.h, known * tokens), floats_at(room.z, BLOCK * tokens)
    for place in range(begin, end):
        i = passed[place]
        later = weights_of(second, passed[min(place + TOGETHER, known - 1)])
        there = later if late else _next_row(second, down, passed, begin, place - begin, known)
        list_row(second, room.listed, place - begin, i, (there if tokens == 1 else weights_of(down, i)) - weights_of(second, i))
    if tokens == 1:
        products(bank.second, room.listed, end - begin, call.prepared, 0, 1, room.z, (4, 4))
    else:
        for place in range(end - begin):
            _second(bank, call, room.listed + LISTED_BYTES * place, room.h + 4 * tokens * (begin + place), room.z + 4 * tokens * place)
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
def _queue_down(bank: Any, tokens: int, token: int, begin: int, end: int, known: int, room: Any, waiting: int) -> int:
    """Appends those of passed[begin:end] that fire for a token to its rows of `down` that wait to be added."""
    rows, factors = room.rows + LISTED_BYTES * QUEUE * token, floats_at(room.factors + 4 * QUEUE * token, QUEUE)
    passed, h, late = longs_at(room.passed, known), floats_at(room.h, known * tokens), decides_late(bank)
    second, down = planes_of(bank.second), planes_of(bank.down)
    for place in range(begin, end):
        value = h[place * tokens + token]
        if value != 0:
            i = passed[place]
            if late:
                there = weights_of(down, i)
            elif bank.kind == PLAIN:
                there = weights_of(down, passed[min(place + TOGETHER, known - 1)])
            else:
                there = _next_row(second, down, passed, begin, end - begin + place - begin, known)
            list_row(down, rows, waiting, i, there - weights_of(down, i))
            factors[waiting] = value
            waiting += 1
    return waiting


@inner
def _flush(bank: Any, room: Any, token: int, count: int, raw: int) -> None:
    axpys(bank.down, room.rows + LISTED_BYTES * QUEUE * token, room.factors + 4 * QUEUE * token, count, raw)


@inner
def _flush_most(bank: Any, room: Any, token: int, waiting: int, raw: int) -> int:
    """Adds as many times TOGETHER as there are; the others move to the front, and are how many still wait."""
    ready = waiting // TOGETHER * TOGETHER
    if ready == 0:
        return waiting
    _flush(bank, room, token, ready, raw)
    if ready < waiting:
        rows = longs_at(room.rows + LISTED_BYTES * QUEUE * token, LISTED * QUEUE)
        factors = floats_at(room.factors + 4 * QUEUE * token, QUEUE)
        for place in range(LISTED * (waiting - ready)):
            rows[place] = rows[LISTED * ready + place]
        for place in range(waiting - ready):
            factors[place] = factors[ready + place]
    return waiting - ready
