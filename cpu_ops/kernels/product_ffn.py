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
from cpu_ops.kernels.product import MEETING, Floats, Indices, measure_excess, multiply_tile, room_for
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import ROWS, address_of, axpys, block_at, floats_at, ints_at, rows_at, scales_of, settle, weights_of
from cpu_ops.kernels.tile_code import LANES, TILE_ROWS
from models.bits import GROUP

NEURONS = 128  # dealt at once; their `down` as float32 in COLUMNS columns is 128 KiB, which stay in the second cache for all tokens
COLUMNS = 256
PASS = 64  # columns summed in registers

# Every neuron's activations: the bank's block, and h float32 [tokens, n].
NEURONS_CALL = np.dtype([("meeting", MEETING), ("bank", np.int64), ("h", np.int64)])
# The sums: ROWS blocks of `units` slices of `down`'s columns, side by side; h as above; lists of who fires, for each block of neurons
# and token: how many int32 [blocks, tokens], which int32 and their h float32 [blocks, tokens, NEURONS]; out float32 [tokens, k].
DOWN_CALL = np.dtype([(name, np.int64) for name in ("slices", "units", "tokens", "k", "h", "counts", "firing", "factors", "out")])
neurons_at, down_at, bank_at = block_at(NEURONS_CALL), block_at(DOWN_CALL), block_at(BANK)
ROWS_BYTES = ROWS.itemsize


@inner
def _excess_part(address: int, token: int) -> None:
    call = neurons_at(address)
    measure_excess(call.meeting, token, bank_at(call.bank).first.k // GROUP)


@inner
def _gate(call: Any, bank: Any, which: Indices, h: Floats, room: Any) -> int:
    """Activations of `first`; moves those of `which` that pass for some token to its front."""
    tokens, n, count = call.meeting.tokens, bank.n, 0
    for begin in range(0, len(which), TILE_ROWS):
        sums = multiply_tile(call.meeting, bank.first, which, begin, room)
        for lane in range(min(TILE_ROWS, len(which) - begin)):
            i, passes = which[begin + lane], False
            bias = floats_at(bank.first_bias, n)[i] if bank.first_bias != 0 else np.float32(0.0)
            for token in range(tokens):
                value = activate(sums[token * TILE_ROWS + lane] + bias, bank)
                h[token * n + i] = value
                passes |= value != 0
            which[count] = i
            count += passes
    return count


@inner
def _up(call: Any, bank: Any, which: Indices, h: Floats, room: Any) -> None:
    """h *= up (or its activation) where the gate passed."""
    tokens, n = call.meeting.tokens, bank.n
    for begin in range(0, len(which), TILE_ROWS):
        sums = multiply_tile(call.meeting, bank.second, which, begin, room)
        for lane in range(min(TILE_ROWS, len(which) - begin)):
            i = which[begin + lane]
            bias = floats_at(bank.second_bias, n)[i] if bank.second_bias != 0 else np.float32(0.0)
            for token in range(tokens):
                value = h[token * n + i]
                if value != 0:
                    up = sums[token * TILE_ROWS + lane] + bias
                    h[token * n + i] = value * (up if bank.kind == GATED else activate(up, bank))


@inner
def _neurons_part(address: int, block: int) -> None:
    call = neurons_at(address)
    bank, tokens = bank_at(call.bank), call.meeting.tokens
    h, room = floats_at(call.h, tokens * bank.n), room_for(tokens)
    which = np.arange(block * NEURONS, min((block + 1) * NEURONS, bank.n))
    passed = _gate(call, bank, which, h, room)
    if bank.kind != PLAIN:
        _up(call, bank, which[:passed], h, room)


@kernel
def neurons(address: int) -> None:
    """Fills `h` of the NEURONS_CALL at an address."""
    call = neurons_at(address)
    in_parallel(_excess_part, address, call.meeting.tokens)
    in_parallel(_neurons_part, address, (bank_at(call.bank).n + NEURONS - 1) // NEURONS)


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
