"""A row that few tokens want: it is unpacked once, and meets each of them alone."""

from typing import Any

from cpu_ops.kernels.fields import Fields
from cpu_ops.kernels.ir import (
    F32,
    I8,
    I16,
    I32,
    I64,
    Builder,
    Value,
    constant,
    halves_to_floats,
    load,
    multiply_add,
    offset,
    pick,
    repeat,
    store,
    total,
    variable,
    vector,
)
from cpu_ops.kernels.tile_code import TileCode
from cpu_ops.kernels.tile_layout import DEPTH, LISTED, PREPARED_BYTES, SCALES, STARTS, STEPS
from models.bits import GROUP

CHAINS = 4  # sums of a row and a token by itself, so that none waits for the one before


def emit_listed(code: TileCode, builder: Builder, address: Value) -> None:
    """out = the row · each token of the LISTED block at an address, in an order of its own."""
    call = Fields(builder, LISTED, address)
    whole = builder.udiv(call["groups"], constant(I64, DEPTH))
    _unpack(code, builder, call, whole)

    def one(place: Value) -> None:
        token = builder.sext(load(builder, offset(builder, call["tokens"], place, 4), I32), I64)
        x = offset(builder, call["x"], token, PREPARED_BYTES)
        store(builder, _product(code, builder, call, x, whole), offset(builder, call["out"], place, 4))

    repeat(builder, constant(I64, 0), call["count"], one)


def _unpack(code: TileCode, builder: Builder, call: Fields, whole: Value) -> None:
    """DEPTH groups at a time, `whole` times, then group by group."""

    def some(index: Value) -> None:
        first = builder.mul(index, constant(I64, DEPTH))
        for place in range(DEPTH):
            _unpack_group(code, builder, call, builder.add(first, constant(I64, place)))
        _widen_scales(builder, call, first, DEPTH)

    def one(group: Value) -> None:
        _unpack_group(code, builder, call, group)
        _widen_scales(builder, call, group, 1)

    repeat(builder, constant(I64, 0), whole, some)
    repeat(builder, builder.mul(whole, constant(I64, DEPTH)), call["groups"], one)


def _unpack_group(code: TileCode, builder: Builder, call: Fields, group: Value) -> None:
    made = code.row(builder, offset(builder, call["row"], group, code.group_bytes))
    store(builder, made, offset(builder, call["room"], group, GROUP))


def _widen_scales(builder: Builder, call: Fields, first: Value, count: int) -> None:
    halves = load(builder, offset(builder, call["row_scales"], first, 2), vector(I16, count))
    store(builder, halves_to_floats(builder, halves), offset(builder, call["room_scales"], first, 4))


class _Sums:
    """What a row and a token have added up to so far: products of DEPTH groups in chains, what those start from, groups by themselves."""

    def __init__(self, builder: Builder, floats: Any) -> None:
        self.chains = [variable(builder, constant(floats, 0.0)) for _ in range(CHAINS)]
        self.starts, self.rest = variable(builder, constant(vector(F32, DEPTH), 0.0)), variable(builder, constant(F32, 0.0))

    def total(self, builder: Builder) -> Value:
        a, b, c, d = (builder.load(chain) for chain in self.chains)
        products = total(builder, builder.fadd(builder.fadd(a, b), builder.fadd(c, d)))
        return builder.fadd(builder.fadd(products, total(builder, builder.load(self.starts))), builder.load(self.rest))


def _product(code: TileCode, builder: Builder, call: Fields, x: Value, whole: Value) -> Value:
    """One row · one token: DEPTH groups at a time, `whole` times, then group by group."""
    sums = _Sums(builder, code.floats)

    def some(index: Value) -> None:
        _add_run(code, builder, call, builder.add(x, builder.mul(index, call["x_stride"])), index, sums)

    def one(group: Value) -> None:
        there = builder.add(x, builder.mul(whole, call["x_stride"]))
        place = builder.sub(group, builder.mul(whole, constant(I64, DEPTH)))
        _add_group(code, builder, call, there, place, group, sums.rest)

    repeat(builder, constant(I64, 0), whole, some)
    repeat(builder, builder.mul(whole, constant(I64, DEPTH)), call["groups"], one)
    return sums.total(builder)


def _add_run(code: TileCode, builder: Builder, call: Fields, there: Value, index: Value, sums: _Sums) -> None:
    """The row's run `index` of DEPTH groups, which the token has at `there`."""
    lanes = code.shape.lanes
    groups_at_once = 4 * lanes // GROUP
    own = load(builder, offset(builder, call["room_scales"], index, 4 * DEPTH), vector(F32, DEPTH))
    scales = builder.fmul(own, load(builder, builder.add(there, constant(I64, SCALES)), own.type))
    if code.bias:
        starts = builder.sitofp(load(builder, builder.add(there, constant(I64, STARTS)), vector(I32, DEPTH)), own.type)
        builder.store(multiply_add(builder, starts, scales, builder.load(sums.starts)), sums.starts)
    for place in range(0, DEPTH, groups_at_once):
        at = builder.add(offset(builder, call["room"], index, DEPTH * GROUP), constant(I64, place * GROUP))
        values = load(builder, builder.add(there, constant(I64, place * GROUP)), code.bytes)
        made = builder.sitofp(code.dot(builder, load(builder, at, code.bytes), values, constant(code.ints, 0)), code.floats)
        spread = pick(builder, scales, [place + lane * 4 // GROUP for lane in range(lanes)])
        chain = sums.chains[place // groups_at_once % CHAINS]
        builder.store(multiply_add(builder, made, spread, builder.load(chain)), chain)


def _add_group(code: TileCode, builder: Builder, call: Fields, there: Value, place: Value, group: Value, rest: Value) -> None:
    """The row's `group`, which is the token's group `place` at `there`."""
    weights = load(builder, offset(builder, call["room"], group, GROUP), vector(I8, GROUP))
    values = load(builder, offset(builder, there, place, GROUP), weights.type)
    made = code.dot(builder, weights, values, constant(vector(I32, STEPS), 0))
    start = load(builder, builder.add(offset(builder, there, place, 4), constant(I64, STARTS)), I32)
    exact = builder.add(total(builder, made), start)
    scale = builder.fmul(
        load(builder, offset(builder, call["room_scales"], group, 4), F32),
        load(builder, builder.add(offset(builder, there, place, 4), constant(I64, SCALES)), F32),
    )
    builder.store(multiply_add(builder, builder.sitofp(exact, F32), scale, builder.load(rest)), rest)
