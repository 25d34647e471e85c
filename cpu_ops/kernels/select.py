"""Which neurons of a bank's part are read: a predictor names some, then the rows that decide are multiplied and activated."""

from typing import Any

import numpy as np

from cpu_ops.kernels.activation import LANES, PLAIN, SILU, activated, silu_all
from cpu_ops.kernels.compile import inner
from cpu_ops.kernels.room import BLOCK
from cpu_ops.kernels.rows import ask, floats_at, list_row, longs_at, planes_of, products, weights_of

AHEAD = 4  # rows of `first` that are asked for before they are read
AHEAD_OUTWARD = 16  # and of a predictor, which are short


@inner
def predict(bank: Any, call: Any, found: int, room: Any) -> int:
    """Leaves of the `found` chosen neurons those that are predicted to fire for some token, and says how many. The first are asked for."""
    tokens, count, last = call.tokens, 0, found - 1
    which, for_whom, scores = longs_at(room.chosen, found), longs_at(room.marks, found), floats_at(room.z, BLOCK * tokens)
    outward, threshold = planes_of(bank.outward), bank.predicted_from
    for begin in range(0, found, BLOCK):
        size = min(BLOCK, found - begin)
        for place in range(size):
            i = which[begin + place]
            far = (which[min(begin + place + AHEAD_OUTWARD, last)] - i) * outward.weights_stride
            list_row(outward, room.listed, place, i, far)
        products(bank.outward, room.listed, size, call.inside_prepared, call.inside_stride, tokens, room.z, (4 * tokens, 4))
        for place in range(size):
            i, mark = which[begin + place], np.int64(0)
            for token in range(tokens):
                mark |= np.int64(scores[place * tokens + token] >= threshold) << token
            if mark != 0:
                if count < AHEAD:
                    ask(bank.first, i)
                which[count], for_whom[count] = i, mark
                count += 1
    return count


@inner
def mark_all(found: int, room: Any) -> None:
    """The chosen neurons are looked at for every token."""
    longs_at(room.marks, found)[:] = -1


@inner
def select(bank: Any, call: Any, begin: int, end: int, found: int, passed: int, room: Any) -> int:
    """Activations of `first` for chosen[begin:end] of `found`; those that pass for some token join the `passed` ones, now so many."""
    tokens, size = call.tokens, end - begin
    _list_first(bank, call, begin, end, found, room)
    products(bank.first, room.listed, size, call.prepared, call.prepared_stride, tokens, room.z, (4 * tokens, 4))
    _activate_all(bank, room.chosen + 8 * begin, size, tokens, room.z)
    if tokens == 1:
        return _keep_of_one(begin, size, passed, room)
    return _keep(bank, tokens, begin, size, passed, room)


@inner
def _list_first(bank: Any, call: Any, begin: int, end: int, found: int, room: Any) -> None:
    """Several tokens have much to compute meanwhile: then, where all pass, what is read next is asked for at once."""
    which, last = longs_at(room.chosen, found), found - 1
    rows, after = planes_of(bank.first), planes_of(_after(bank))
    at_once = call.tokens > 1 and bank.activation >= SILU
    for place in range(begin, end):
        i = which[place]
        far = (which[min(place + AHEAD, last)] - i) * rows.weights_stride
        list_row(rows, room.listed, place - begin, i, weights_of(after, i) - weights_of(rows, i) if at_once else far)


@inner
def _after(bank: Any) -> Any:
    """The rows that are read next of a neuron that passes."""
    return bank.down if bank.kind == PLAIN else bank.second


@inner
def _keep_of_one(begin: int, size: int, passed: int, room: Any) -> int:
    which, kept = longs_at(room.chosen + 8 * begin, size), longs_at(room.passed, passed + size)
    z, h = floats_at(room.z, size), floats_at(room.h, passed + size)
    for place in range(size):
        kept[passed], h[passed] = which[place], z[place]
        passed += z[place] != 0
    return passed


@inner
def _keep(bank: Any, tokens: int, begin: int, size: int, passed: int, room: Any) -> int:
    which, for_whom = longs_at(room.chosen + 8 * begin, size), longs_at(room.marks + 8 * begin, size)
    kept, z, h = longs_at(room.passed, passed + size), floats_at(room.z, size * tokens), floats_at(room.h, (passed + size) * tokens)
    after, ask_soon = _after(bank), bank.activation < SILU
    for place in range(size):
        mark, passes = for_whom[place], False
        for token in range(tokens):
            value = z[place * tokens + token] if (mark >> token) & 1 else np.float32(0.0)
            h[passed * tokens + token] = value
            passes |= value != 0
        if passes:
            if ask_soon:
                ask(after, which[place])
            kept[passed] = which[place]
            passed += 1
    return passed


@inner
def _activate_all(bank: Any, chosen: int, count: int, tokens: int, z: int) -> None:
    """z[place] = the activation of z[place] + the bias of neuron chosen[place]; both are addresses."""
    activation, threshold, values = bank.activation, np.float32(bank.threshold), count * tokens
    flat = floats_at(z, values)
    if bank.first_bias != 0:
        bias, which = floats_at(bank.first_bias, bank.n), longs_at(chosen, count)
        for place in range(count):
            for token in range(tokens):
                flat[place * tokens + token] += bias[which[place]]
    if activation == SILU:
        silu_all(z, (values + LANES - 1) // LANES)
        return
    for place in range(values):
        flat[place] = activated(flat[place], activation, threshold)
