"""The naked loops of a bank's FFN on many tokens: first what every neuron makes of every token, then, where few fire, their sums.

Both deal what they write: neurons in the first loop, columns of the output in the second. So there is nothing to merge, and a
token's bits depend neither on the threads nor on the other tokens.
"""

from typing import Any

import numpy as np
from numba import types

from cpu_ops.kernels.activation import GATED, PLAIN, activate
from cpu_ops.kernels.compile import inner, intrinsic, kernel
from cpu_ops.kernels.ffn import BANK
from cpu_ops.kernels.ir import F32, I32, I64, Builder, Value, constant, load, multiply_add, offset, repeat, splat, store, variable, vector
from cpu_ops.kernels.product import MEETING, Floats, multiply_tile, prepare_token, room_for, run_at
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import (
    ROWS,
    address_of,
    ask,
    axpys,
    block_at,
    floats_at,
    ints_at,
    longs_at,
    rows_at,
    scales_of,
    settle,
    weights_of,
)
from cpu_ops.kernels.tile_code import LISTED, PREPARED_BYTES, TILE_ROWS
from models.bits import GROUP

NEURONS = 128  # dealt at once; their `down` as float32 in COLUMNS columns is 128 KiB, which stay in the second cache for all tokens
COLUMNS = 256
LANES = 8
PASS = 64  # columns summed in registers

# Every neuron's activations: the bank's block, h float32 [tokens, n], and int64 [blocks] for how many of a block's are not zero.
NEURONS_CALL = np.dtype([("meeting", MEETING), ("bank", np.int64), ("h", np.int64), ("passed", np.int64), ("few", np.int64)])
# The sums: ROWS blocks of `units` slices of `down`'s columns, side by side; h as above; lists of who fires, for each block of neurons
# and token: how many int32 [blocks, tokens], which int32 and their h float32 [blocks, tokens, NEURONS]; out float32 [tokens, k].
DOWN_CALL = np.dtype([(name, np.int64) for name in ("slices", "units", "tokens", "k", "h", "counts", "firing", "factors", "out")])
neurons_at, down_at, bank_at, listed_at = block_at(NEURONS_CALL), block_at(DOWN_CALL), block_at(BANK), block_at(LISTED)
LISTED_LONGS = len(LISTED.names or ())
ROWS_BYTES = ROWS.itemsize


@inner
def _prepare_part(address: int, token: int) -> None:
    call = neurons_at(address)
    prepare_token(call.meeting, token, bank_at(call.bank).first.k // GROUP)


@inner
def _gate_part(address: int, block: int) -> None:
    """Activations of `first`, and how many of them pass."""
    call = neurons_at(address)
    bank, tokens = bank_at(call.bank), call.meeting.tokens
    n, passed = bank.n, 0
    h, room = floats_at(call.h, tokens * n), room_for(tokens)
    which = np.arange(block * NEURONS, min((block + 1) * NEURONS, n))
    for begin in range(0, len(which), TILE_ROWS):
        sums = multiply_tile(call.meeting, bank.first, which, begin, room)
        first, count = which[begin], min(TILE_ROWS, len(which) - begin)
        for token in range(tokens):
            for lane in range(count):
                bias = floats_at(bank.first_bias, n)[first + lane] if bank.first_bias != 0 else np.float32(0.0)
                value = activate(sums[token * TILE_ROWS + lane] + bias, bank)
                h[token * n + first + lane] = value
                passed += value != 0
    longs_at(call.passed, block + 1)[block] = passed


@inner
def _widen(bank: Any, i: int, value: np.float32, up: np.float32) -> np.float32:
    """The activation of a neuron whose gate gave `value`, from what its second row gave."""
    z = up + floats_at(bank.second_bias, bank.n)[i] if bank.second_bias != 0 else up
    return value * (z if bank.kind == GATED else activate(z, bank))


@inner
def _up_part(address: int, block: int) -> None:
    """h *= up (or its activation) where the gate passed: by tiles of the rows that some token wants."""
    call = neurons_at(address)
    bank, tokens = bank_at(call.bank), call.meeting.tokens
    n, first, wanted = bank.n, block * NEURONS, 0
    h, room = floats_at(call.h, tokens * n), room_for(tokens)
    which = np.empty(min(NEURONS, n - first), np.int64)
    for i in range(first, first + len(which)):
        wants = False
        for token in range(tokens):
            wants |= h[token * n + i] != 0
        which[wanted] = i
        wanted += wants
    for begin in range(0, wanted, TILE_ROWS):
        sums = multiply_tile(call.meeting, bank.second, which[:wanted], begin, room)
        for token in range(tokens):
            for lane in range(min(TILE_ROWS, wanted - begin)):
                at = token * n + which[begin + lane]
                if h[at] != 0:
                    h[at] = _widen(bank, which[begin + lane], h[at], sums[token * TILE_ROWS + lane])


@inner
def _listed_up_part(address: int, block: int) -> None:
    """The same row by row, each with the tokens that want it."""
    call = neurons_at(address)
    bank, tokens = bank_at(call.bank), call.meeting.tokens
    n, groups = bank.n, bank.second.k // GROUP
    h = floats_at(call.h, tokens * n)
    words, firing, out = np.empty(LISTED_LONGS, np.int64), np.empty(tokens, np.int32), np.empty(tokens, np.float32)
    room, room_scales = np.empty(groups * GROUP, np.int8), np.empty(groups, np.float32)
    listed = listed_at(address_of(words))
    listed.groups, listed.room, listed.room_scales = groups, address_of(room), address_of(room_scales)
    listed.x, listed.x_stride = call.meeting.prepared, tokens * PREPARED_BYTES
    listed.tokens, listed.out = address_of(firing), address_of(out)
    last = min((block + 1) * NEURONS, n)
    for i in range(block * NEURONS, last):
        count = 0
        for token in range(tokens):
            firing[count] = token
            count += h[token * n + i] != 0
        ask(bank.second, min(i + 1, last - 1))
        if count > 0:
            listed.row, listed.row_scales, listed.count = weights_of(bank.second, i), scales_of(bank.second, i), count
            run_at(call.meeting.listed, address_of(words))
        for place in range(count):
            at = firing[place] * n + i
            h[at] = _widen(bank, i, h[at], out[place])


@kernel
def neurons(address: int) -> None:
    """Fills `h` of the NEURONS_CALL at an address."""
    call = neurons_at(address)
    bank, tokens = bank_at(call.bank), call.meeting.tokens
    blocks = (bank.n + NEURONS - 1) // NEURONS
    in_parallel(_prepare_part, address, tokens)
    in_parallel(_gate_part, address, blocks)
    if bank.kind == PLAIN:
        return
    if longs_at(call.passed, blocks).sum() <= call.few:
        in_parallel(_listed_up_part, address, blocks)
    else:
        in_parallel(_up_part, address, blocks)


@intrinsic
def _add_listed(typing: Any, table: Any, row_bytes: Any, firing: Any, factors: Any, count: Any, sums: Any, floats: Any) -> Any:
    """sums [floats] += Σ factors[j] · row firing[j] of the float32 table, in order. `floats` is a multiple of LANES."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        table, row_bytes, firing, factors, count, sums, floats = arguments

        def some(first: Value, vectors: int) -> None:
            kind = vector(F32, LANES)
            places = [builder.add(offset(builder, sums, first, 4), constant(I64, 32 * v)) for v in range(vectors)]
            totals = [variable(builder, constant(kind, 0.0)) for _ in range(vectors)]
            for total, place in zip(totals, places, strict=True):
                builder.store(load(builder, place, kind), total)
            column = offset(builder, table, first, 4)

            def one(j: Value) -> None:
                index = builder.sext(load(builder, offset(builder, firing, j, 4), I32), I64)
                factor = splat(builder, load(builder, offset(builder, factors, j, 4), F32), LANES)
                row = builder.add(column, builder.mul(index, row_bytes))
                for v, total in enumerate(totals):
                    weights = load(builder, builder.add(row, constant(I64, 32 * v)), kind)
                    builder.store(multiply_add(builder, weights, factor, builder.load(total)), total)

            repeat(builder, constant(I64, 0), count, one)
            for total, place in zip(totals, places, strict=True):
                store(builder, builder.load(total), place)

        whole = builder.udiv(floats, constant(I64, PASS))
        repeat(builder, constant(I64, 0), whole, lambda index: some(builder.mul(index, constant(I64, PASS)), PASS // LANES))
        first, last = builder.mul(whole, constant(I64, PASS // LANES)), builder.udiv(floats, constant(I64, LANES))
        repeat(builder, first, last, lambda index: some(builder.mul(index, constant(I64, LANES)), 1))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), emit


@inner
def _list_part(address: int, block: int) -> None:
    """Who fires among a block of neurons, for each token."""
    call = down_at(address)
    n = rows_at(call.slices).n
    for token in range(call.tokens):
        there = block * call.tokens + token
        h = floats_at(call.h + 4 * (token * n + block * NEURONS), min(NEURONS, n - block * NEURONS))
        firing = ints_at(call.firing + 4 * there * NEURONS, NEURONS)
        factors = floats_at(call.factors + 4 * there * NEURONS, NEURONS)
        count = 0
        for place in range(len(h)):
            firing[count], factors[count] = place, h[place]
            count += h[place] != 0
        ints_at(call.counts + 4 * there, 1)[0] = count


@inner
def _decode_block(rows: Any, block: int, table: Floats, raw: int) -> None:
    """The raw sums of each row alone, of one block of neurons."""
    chosen, one = np.empty(2, np.int64), np.ones(1, np.float32)
    table[:] = 0
    for i in range(block * NEURONS, min((block + 1) * NEURONS, rows.n)):
        chosen[0], chosen[1] = weights_of(rows, i), scales_of(rows, i)
        axpys(rows, address_of(chosen), address_of(one), 1, address_of(table) + 4 * (i - block * NEURONS) * raw)


@inner
def _down_part(address: int, unit: int) -> None:
    """One slice of the columns, for every token: block after block of neurons is decoded, and each token adds those that fire."""
    call = down_at(address)
    rows, tokens = rows_at(call.slices + unit * ROWS_BYTES), call.tokens
    raw = (rows.raw_floats + LANES - 1) // LANES * LANES
    table, sums = np.empty(NEURONS * raw, np.float32), np.zeros(tokens * raw, np.float32)
    for block in range((rows.n + NEURONS - 1) // NEURONS):
        _decode_block(rows, block, table, raw)
        counts = ints_at(call.counts + 4 * block * tokens, tokens)
        for token in range(tokens):
            lists = 4 * (block * tokens + token) * NEURONS
            here = address_of(sums) + 4 * token * raw
            _add_listed(address_of(table), 4 * raw, call.firing + lists, call.factors + lists, np.int64(counts[token]), here, raw)
    for token in range(tokens):
        settle(rows, address_of(sums) + 4 * token * raw, call.out + 4 * (token * call.k + unit * COLUMNS))


@kernel
def down(address: int) -> None:
    """Fills `out` of the DOWN_CALL at an address: each token's sum over the neurons that fire for it."""
    call = down_at(address)
    in_parallel(_list_part, address, (rows_at(call.slices).n + NEURONS - 1) // NEURONS)
    in_parallel(_down_part, address, call.units)
