"""The naked loops of a bank's FFN on few tokens: (predict,) gate, select, up, down in one parallel region, a merge in a second.

Each part has raw sums of its own; they are merged in their order. So a token's bits depend on the bank alone: not on the threads,
not on the other tokens of the call.
"""

from typing import Any

import numpy as np
from numba import types

from cpu_ops.kernels.activation import GATED
from cpu_ops.kernels.bank import bank_at, call_at, deal, most_of_part
from cpu_ops.kernels.compile import SERIAL_WEIGHTS, inner, kernel, native
from cpu_ops.kernels.neurons import add_all, add_pairs, ask_first, flush_all
from cpu_ops.kernels.region import in_parallel, use_threads
from cpu_ops.kernels.room import BLOCK, room_at, room_bytes
from cpu_ops.kernels.rows import address_of, alive, floats_at, longs_at, prepare_all, settle
from cpu_ops.kernels.select import mark_all, predict, select
from cpu_ops.kernels.sums import add_parts

BLOCK_PREDICTED = 32  # of neurons that a predictor named: most of them pass
PIECES = 24  # of the merge


@inner
def _ffn_part(address: int, part: int) -> None:
    """sums[part, T, raw] = what the part's neurons add."""
    call = call_at(address)
    bank, tokens = bank_at(call.bank), call.tokens
    sums = call.sums + part * tokens * 4 * bank.down.raw_floats
    floats_at(sums, tokens * bank.down.raw_floats)[:] = 0
    own = most_of_part(bank, call)
    memory = np.empty(room_bytes(own, tokens), np.uint8)
    room = room_at(address_of(memory), own, tokens)
    longs_at(room.waiting, tokens)[:] = 0
    found, block = deal(bank, call, part, room.chosen), BLOCK
    if bank.outward.n > 0:
        found, block = predict(bank, call, found, room), BLOCK_PREDICTED
    elif tokens > 1:
        mark_all(found, room)
    _compute(bank, call, found, block, room, sums)
    alive(memory)


@inner
def _compute(bank: Any, call: Any, found: int, block: int, room: Any, sums: int) -> None:
    """sums[T, raw] += what chosen[:found] add. Those that pass are added when the next block's are known, which are then asked for."""
    tokens, added, passed = call.tokens, 0, 0
    pairs = tokens == 1 and bank.kind == GATED
    for begin in range(0, found + block, block):
        ready = passed
        if begin < found:
            passed = select(bank, call, begin, min(begin + block, found), found, passed, room)
        if begin == 0 and tokens == 1:
            ask_first(bank, passed, room)
        if pairs:
            add_pairs(bank, call, added, ready, passed, room, sums)
        else:
            add_all(bank, call, added, ready, passed, room, sums)
        added = ready
    flush_all(bank, call, room, sums)


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
