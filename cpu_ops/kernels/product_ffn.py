"""The naked loops of a bank's FFN on many tokens: first what every neuron makes of every token, then, where few fire, their sums.

Both deal what they write: neurons in the first loop, columns of the output in the second. So there is nothing to merge, and a
token's bits depend neither on the threads nor on the other tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types

from cpu_ops.kernels.activation import GATED, PLAIN, activate
from cpu_ops.kernels.bank import BANK
from cpu_ops.kernels.call import call_four, call_one, call_three
from cpu_ops.kernels.compile import inner, intrinsic, kernel
from cpu_ops.kernels.ir import F32, I32, I64, Builder, Value, constant, load, multiply_add, offset, repeat, splat, store, variable, vector
from cpu_ops.kernels.product import MEETING, lines, multiply_tile, prepare_token, room_for
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import address_of, alive, ask, block_at, floats_at, ints_at, longs_at, rows_at, scales_of, weights_of
from cpu_ops.kernels.target import target_of
from cpu_ops.kernels.tile_layout import LISTED, PREPARED_BYTES, TILE_ROWS, shape_of
from models.bits import GROUP

NEURONS = 64  # looked at at once; their `down` as float32 in COLUMNS columns is 32 KiB, which stay in the first cache for all tokens
COLUMNS = 128
SLICES = 2  # of COLUMNS, that are widened at once: shorter pieces of a row cost memory more lines and the processor more calls
AHEAD = 8  # rows whose pieces are asked for before they are widened
VECTORS = 8  # of a token's sums in registers at once
ENTRY_BYTES = 8
DECKS = 24  # blocks are dealt like cards: hot neurons come first, and one thread would get them all

# Every neuron's activations: the bank's block; h float32 [n, tokens]; int64 [blocks] for how many of a block's gates pass, and up to how
# many in all `up` is multiplied row by row.
NEURONS_CALL = np.dtype([("meeting", MEETING), ("bank", np.int64), ("h", np.int64), ("passed", np.int64), ("few", np.int64)])
# The sums: the block of `down`, the function that widens its rows, and the bytes of COLUMNS weights and of their scales; h as above; for
# each block of neurons who fires: how many for each token int32 [blocks, tokens], and token after token where in the block's table its
# row begins, in bytes, int32, and its h, float32: [blocks, tokens · NEURONS, 2]; out float32 [tokens, k].
DOWN_CALL = np.dtype(
    [(name, np.int64) for name in ("rows", "widen", "weights_bytes", "scales_bytes", "tokens", "h", "counts", "entries", "out")]
)
neurons_at, down_at, bank_at, listed_at = block_at(NEURONS_CALL), block_at(DOWN_CALL), block_at(BANK), block_at(LISTED)
LISTED_LONGS = len(LISTED.names or ())


@inner
def _prepare_part(address: int, token: int) -> None:
    call = neurons_at(address)
    prepare_token(call.meeting, token, bank_at(call.bank).first.k // GROUP)


@inner
def _gate_block(call: Any, bank: Any, block: int, room: Any) -> int:
    """Activations of `first`; how many of them pass."""
    tokens, n, passed = call.meeting.tokens, bank.n, 0
    which = np.arange(block * NEURONS, min((block + 1) * NEURONS, n))
    for begin in range(0, len(which), TILE_ROWS):
        sums = multiply_tile(call.meeting, bank.first, which, begin, room)
        for lane in range(min(TILE_ROWS, len(which) - begin)):
            i = which[begin + lane]
            bias = floats_at(bank.first_bias, n)[i] if bank.first_bias != 0 else np.float32(0.0)
            h = floats_at(call.h + 4 * i * tokens, tokens)
            for token in range(tokens):
                h[token] = activate(sums[token * TILE_ROWS + lane] + bias, bank)
                passed += h[token] != 0
    return passed


@inner
def _gate_part(address: int, deck: int) -> None:
    call = neurons_at(address)
    bank = bank_at(call.bank)
    blocks, room = blocks_of(bank.n), room_for(call.meeting.tokens)
    for block in range(deck, blocks, DECKS):
        longs_at(call.passed, blocks)[block] = _gate_block(call, bank, block, room)


@inner
def _widened(bank: Any, i: int, value: np.float32, up: np.float32) -> np.float32:
    """The activation of a neuron whose gate gave `value`, from what its second row gave."""
    z = up + floats_at(bank.second_bias, bank.n)[i] if bank.second_bias != 0 else up
    return value * (z if bank.kind == GATED else activate(z, bank))


@inner
def _wanted(call: Any, bank: Any, block: int) -> Any:
    """The neurons of a block that some token wants."""
    tokens, first, wanted = call.meeting.tokens, block * NEURONS, 0
    which = np.empty(min(NEURONS, bank.n - first), np.int64)
    for i in range(first, first + len(which)):
        wants = False
        for value in floats_at(call.h + 4 * i * tokens, tokens):
            wants |= value != 0
        which[wanted] = i
        wanted += wants
    return which[:wanted]


@inner
def _up_part(address: int, deck: int) -> None:
    """h *= up (or its activation) where the gate passed: by tiles of the rows that some token wants."""
    call = neurons_at(address)
    bank, tokens = bank_at(call.bank), call.meeting.tokens
    room = room_for(tokens)
    for block in range(deck, blocks_of(bank.n), DECKS):
        which = _wanted(call, bank, block)
        for begin in range(0, len(which), TILE_ROWS):
            sums = multiply_tile(call.meeting, bank.second, which, begin, room)
            for lane in range(min(TILE_ROWS, len(which) - begin)):
                i = which[begin + lane]
                h = floats_at(call.h + 4 * i * tokens, tokens)
                for token in range(tokens):
                    if h[token] != 0:
                        h[token] = _widened(bank, i, h[token], sums[token * TILE_ROWS + lane])


@inner
def _listed_up_part(address: int, deck: int) -> None:
    """The same row by row, each with the tokens that want it."""
    call = neurons_at(address)
    bank, tokens = bank_at(call.bank), call.meeting.tokens
    groups, n = bank.second.k // GROUP, bank.n
    words, firing, out = np.empty(LISTED_LONGS, np.int64), np.empty(tokens, np.int32), np.empty(tokens, np.float32)
    memory, room = lines((GROUP + 4) * groups)
    listed = listed_at(address_of(words))
    listed.groups, listed.room, listed.room_scales = groups, room, room + GROUP * groups
    listed.x, listed.x_stride = call.meeting.prepared, tokens * PREPARED_BYTES
    listed.tokens, listed.out = address_of(firing), address_of(out)
    for block in range(deck, blocks_of(n), DECKS):
        for i in range(block * NEURONS, min((block + 1) * NEURONS, n)):
            h, count = floats_at(call.h + 4 * i * tokens, tokens), 0
            for token in range(tokens):
                firing[count] = token
                count += h[token] != 0
            ask(bank.second, min(i + 1, n - 1))
            if count > 0:
                listed.row, listed.row_scales, listed.count = weights_of(bank.second, i), scales_of(bank.second, i), count
                call_one(call.meeting.listed, address_of(words))
            for place in range(count):
                h[firing[place]] = _widened(bank, i, h[firing[place]], out[place])
    alive(words)
    alive(memory)
    alive(firing)
    alive(out)


@inner
def blocks_of(n: int) -> int:
    return (n + NEURONS - 1) // NEURONS


@kernel
def neurons(address: int) -> None:
    """Fills `h` of the NEURONS_CALL at an address."""
    call = neurons_at(address)
    bank = bank_at(call.bank)
    in_parallel(_prepare_part, address, call.meeting.tokens)
    in_parallel(_gate_part, address, DECKS)
    if bank.kind == PLAIN:
        return
    if longs_at(call.passed, blocks_of(bank.n)).sum() <= call.few:
        in_parallel(_listed_up_part, address, DECKS)
    else:
        in_parallel(_up_part, address, DECKS)


def _add_columns(builder: Builder, arguments: Sequence[Value], first: int, lanes: int) -> None:
    """VECTORS vectors of columns from `first` on, of every entry's row."""
    table, entries, count, sums = arguments
    kind = vector(F32, lanes)
    steps = [constant(I64, 4 * (first + lanes * v)) for v in range(VECTORS)]
    totals = [variable(builder, load(builder, builder.add(sums, step), kind)) for step in steps]

    def one(j: Value) -> None:
        at = offset(builder, entries, j, ENTRY_BYTES)
        factor = splat(builder, load(builder, builder.add(at, constant(I64, 4)), F32), lanes)
        row = builder.add(table, builder.sext(load(builder, at, I32), I64))
        for total, step in zip(totals, steps, strict=True):
            weights = load(builder, builder.add(row, step), kind)
            builder.store(multiply_add(builder, weights, factor, builder.load(total)), total)

    repeat(builder, constant(I64, 0), count, one)
    for total, step in zip(totals, steps, strict=True):
        store(builder, builder.load(total), builder.add(sums, step))


@intrinsic
def _add_listed(typing: Any, table: Any, entries: Any, count: Any, sums: Any) -> Any:
    """sums float32 [COLUMNS] += Σ factor · row of the table, for each entry in order. Addresses."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        lanes = shape_of(target_of(builder)).lanes
        for first in range(0, COLUMNS, VECTORS * lanes):
            _add_columns(builder, arguments, first, lanes)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), emit


@inner
def _list_block(call: Any, n: int, block: int) -> None:
    """Who fires among a block of neurons, token after token."""
    tokens, first = call.tokens, block * NEURONS
    count = min(NEURONS, n - first)
    h, counts = floats_at(call.h + 4 * first * tokens, count * tokens), ints_at(call.counts + 4 * block * tokens, tokens)
    at = call.entries + block * tokens * NEURONS * ENTRY_BYTES
    rows, factors, used = ints_at(at, 2 * tokens * NEURONS), floats_at(at, 2 * tokens * NEURONS), 0
    for token in range(tokens):
        before = used
        for place in range(count):
            value = h[place * tokens + token]
            rows[2 * used], factors[2 * used + 1] = place * COLUMNS * 4, value  # a branch would be foretold wrongly too often
            used += value != 0
        counts[token] = used - before


@inner
def _list_part(address: int, deck: int) -> None:
    call = down_at(address)
    n = rows_at(call.rows).n
    for block in range(deck, blocks_of(n), DECKS):
        _list_block(call, n, block)


@inner
def _widen_block(call: Any, rows: Any, block: int, unit: int, width: int, table: int) -> None:
    """`width` columns of a block of neurons, as SLICES tables [NEURONS, COLUMNS]."""
    first, last = block * NEURONS, min((block + 1) * NEURONS, rows.n)
    weights, scales = rows.weights + unit * SLICES * call.weights_bytes, rows.scales + unit * SLICES * call.scales_bytes
    for i in range(first, last):
        far = min(i + AHEAD, rows.n - 1)
        call_three(rows.ask, weights + far * rows.weights_stride, scales + far * rows.scales_stride, width)
        for part in range((width + COLUMNS - 1) // COLUMNS):
            own_weights = weights + i * rows.weights_stride + part * call.weights_bytes
            own_scales = scales + i * rows.scales_stride + part * call.scales_bytes
            there = table + 4 * COLUMNS * (part * NEURONS + i - first)
            call_four(call.widen, own_weights, own_scales, min(COLUMNS, width - part * COLUMNS), there)


@inner
def _down_part(address: int, unit: int) -> None:
    """Some columns, for every token: block after block of neurons is widened, and each token adds those that fire."""
    call = down_at(address)
    rows, tokens = rows_at(call.rows), call.tokens
    width = min(SLICES * COLUMNS, rows.k - unit * SLICES * COLUMNS)
    parts = (width + COLUMNS - 1) // COLUMNS
    memory, table = lines(4 * COLUMNS * SLICES * (NEURONS + tokens))
    sums = table + 4 * COLUMNS * SLICES * NEURONS
    floats_at(table, COLUMNS * SLICES * (NEURONS + tokens))[:] = 0
    for block in range(blocks_of(rows.n)):
        _widen_block(call, rows, block, unit, width, table)
        counts = ints_at(call.counts + 4 * block * tokens, tokens)
        for part in range(parts):
            at = call.entries + block * tokens * NEURONS * ENTRY_BYTES
            for token in range(tokens):
                here = sums + 4 * COLUMNS * (part * tokens + token)
                _add_listed(table + 4 * COLUMNS * NEURONS * part, at, np.int64(counts[token]), here)
                at += counts[token] * ENTRY_BYTES
    for part in range(parts):
        size = min(COLUMNS, width - part * COLUMNS)
        for token in range(tokens):
            out = call.out + 4 * (token * rows.k + (unit * SLICES + part) * COLUMNS)
            floats_at(out, size)[:] = floats_at(sums + 4 * COLUMNS * (part * tokens + token), size)
    alive(memory)


@kernel
def down(address: int) -> None:
    """Fills `out` of the DOWN_CALL at an address: each token's sum over the neurons that fire for it."""
    call = down_at(address)
    in_parallel(_list_part, address, DECKS)
    in_parallel(_down_part, address, (rows_at(call.rows).k + SLICES * COLUMNS - 1) // (SLICES * COLUMNS))
