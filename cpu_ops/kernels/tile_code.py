"""Vector IR for many tokens: a tile of rows is unpacked once, then every token meets it from the nearest cache.

Unpacked, a lane is a row: vector m of a group holds bytes 4m … 4m+3 of eight rows, so four bytes of a token, the same in every
lane, meet them without a shuffle, and what a group adds up to is one lane a row. Knows two formats, no matrix and no threads.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from cpu_ops.kernels.byte_dot import byte_dot, bytes_multiplied, has_words, small_dot, words_added
from cpu_ops.kernels.ir import (
    CACHE_LINE,
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
    prefetch,
    repeat,
    splat,
    store,
    vector,
)
from cpu_ops.kernels.machine_code import Library, library
from cpu_ops.kernels.target import Module, Target, numba_target
from models.bits import GROUP, FormatName

LANES = 8
HALVES = 2
TILE_ROWS = HALVES * LANES  # with four tokens: eight int16 sums, two vectors of weights, one of input fit sixteen registers
TOGETHER = 4  # tokens that meet a vector of weights while it is in a register
STEPS = GROUP // 4
STEP_BYTES = HALVES * LANES * 4
GROUP_ROOM = STEPS * STEP_BYTES  # bytes of an unpacked group of a tile
QUARTER = 16  # bytes of a row that are transposed at once
BYTES, WORDS, INTS, FLOATS = vector(I8, 32), vector(I16, 16), vector(I32, LANES), vector(F32, LANES)

# What both functions are told. Addresses: `chosen` int64 [2 · TILE_ROWS, 2], weights and scales of the rows and of those to ask for;
# `weights` and `scales` the unpacked tile; from token 0 and the first group on x, its scales, and int32 what to take from each group's
# product; `sums` float32 [tokens, TILE_ROWS], added to. Strides in bytes.
TILE = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("chosen", "first", "groups", "weights", "scales", "tokens", "sums"),
            *("x", "x_stride", "x_scales", "x_scales_stride", "excess", "excess_stride"),
        )
    ]
)
FIELDS: tuple[str, ...] = TILE.names or ()


class TileCode(ABC):
    """Emits what differs between formats."""

    group_bytes: int  # of the quants, as stored
    bias: int  # what unpacked weights have too much
    sums: Any = INTS  # of any integers that hold all of a group's

    @abstractmethod
    def unpacked(self, builder: Builder, rows: list[Value]) -> list[Value]:
        """Eight addresses of a group -> STEPS vectors int8 [32]."""

    def add(self, builder: Builder, weights: Value, values: Value, sums: Value) -> Value:
        """A step's products onto the sums so far."""
        return byte_dot(builder, weights, values, sums)

    def finished(self, builder: Builder, sums: Value) -> Value:
        """A group's sums as int32 [8]."""
        return sums


class Int8Tile(TileCode):
    group_bytes = GROUP
    bias = 0

    def unpacked(self, builder: Builder, rows: list[Value]) -> list[Value]:
        return [*_transposed(builder, rows, 0), *_transposed(builder, rows, QUARTER)]


class Int4Tile(TileCode):
    """Nibbles as they are, 0 … 15."""

    group_bytes = GROUP // 2
    bias = 8

    def add(self, builder: Builder, weights: Value, values: Value, sums: Value) -> Value:
        return small_dot(builder, (weights,), (values,), sums)

    def unpacked(self, builder: Builder, rows: list[Value]) -> list[Value]:
        packed = [builder.bitcast(both, INTS) for both in _transposed(builder, rows, 0)]
        low = constant(INTS, 0x0F0F0F0F)
        lows = [builder.and_(both, low) for both in packed]
        highs = [builder.and_(builder.lshr(both, constant(INTS, 4)), low) for both in packed]
        return [builder.bitcast(nibbles, BYTES) for nibbles in (*lows, *highs)]


class Int4TileInWords(Int4Tile):
    """A group's int16 sums are at most 8 · 2 · 15 · 127 = 30,480, so one widening a group is enough."""

    sums = WORDS

    def add(self, builder: Builder, weights: Value, values: Value, sums: Value) -> Value:
        return builder.add(sums, bytes_multiplied(builder, weights, values))

    def finished(self, builder: Builder, sums: Value) -> Value:
        return words_added(builder, sums)


def _transposed(builder: Builder, rows: list[Value], at: int) -> list[Value]:
    """16 bytes of eight rows -> four vectors of bytes 4m … 4m+3 of every row, by the shuffles that stay within half a register."""

    def mixed(a: Value, b: Value, lanes: list[int]) -> Value:
        return builder.shuffle_vector(a, b, ir.Constant(vector(I32, LANES), [ir.Constant(I32, lane) for lane in lanes]))

    parts = [load(builder, builder.add(row, constant(I64, at)), vector(I32, 4)) for row in rows]
    pairs = [mixed(parts[i], parts[i + 4], list(range(LANES))) for i in range(4)]
    low, high = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
    front, back = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    made = []
    for lanes in (low, high):
        a, b = mixed(pairs[0], pairs[1], lanes), mixed(pairs[2], pairs[3], lanes)
        made += [mixed(a, b, front), mixed(a, b, back)]
    return [builder.bitcast(each, BYTES) for each in made]


class Tile:
    """The fields of a TILE block, as IR values."""

    def __init__(self, builder: Builder, address: Value) -> None:
        self.values = {name: load(builder, builder.add(address, constant(I64, 8 * place)), I64) for place, name in enumerate(FIELDS)}

    def __getitem__(self, name: str) -> Value:
        return self.values[name]


def emit_unpack(code: TileCode, builder: Builder, tile: Tile) -> None:
    """Fills `weights` and `scales` with `groups` groups from the `first` of the chosen rows, and asks for those of the rows after them."""
    for half in range(HALVES):
        weights, scales = [], []
        for row in range(half * LANES, (half + 1) * LANES):
            at = builder.add(tile["chosen"], constant(I64, 16 * row))
            weights.append(offset(builder, load(builder, at, I64), tile["first"], code.group_bytes))
            scales.append(offset(builder, load(builder, builder.add(at, constant(I64, 8)), I64), tile["first"], 2))
        _unpack_half(code, builder, tile, half, weights, scales)
    size = builder.mul(tile["groups"], constant(I64, code.group_bytes))

    def ask(row: Value) -> None:
        at = offset(builder, builder.add(tile["chosen"], constant(I64, 16 * TILE_ROWS)), row, 16)
        weights = offset(builder, load(builder, at, I64), tile["first"], code.group_bytes)
        lines = builder.udiv(builder.add(size, constant(I64, CACHE_LINE - 1)), constant(I64, CACHE_LINE))
        repeat(builder, constant(I64, 0), lines, lambda line: prefetch(builder, offset(builder, weights, line, CACHE_LINE)))
        prefetch(builder, offset(builder, load(builder, builder.add(at, constant(I64, 8)), I64), tile["first"], 2))

    repeat(builder, constant(I64, 0), constant(I64, TILE_ROWS), ask)


def _unpack_half(code: TileCode, builder: Builder, tile: Tile, half: int, weights: list[Value], scales: list[Value]) -> None:
    def one(group: Value) -> None:
        there = builder.add(offset(builder, tile["weights"], group, GROUP_ROOM), constant(I64, half * 4 * LANES))
        for step, made in enumerate(code.unpacked(builder, [offset(builder, row, group, code.group_bytes) for row in weights])):
            store(builder, made, builder.add(there, constant(I64, step * STEP_BYTES)))
        bits = ir.Constant(vector(I16, LANES), ir.Undefined)
        for lane, row in enumerate(scales):
            bits = builder.insert_element(bits, load(builder, offset(builder, row, group, 2), I16), constant(I32, lane))
        place = builder.add(offset(builder, tile["scales"], group, 4 * TILE_ROWS), constant(I64, half * 4 * LANES))
        store(builder, halves_to_floats(builder, bits), place)

    repeat(builder, constant(I64, 0), tile["groups"], one)


def emit_multiply(code: TileCode, builder: Builder, tile: Tile) -> None:
    """sums += unpacked rows · x, group after group for each token: its bits do not depend on the others."""
    whole = builder.udiv(tile["tokens"], constant(I64, TOGETHER))
    some = _multiplier(code, builder, tile)
    repeat(builder, constant(I64, 0), whole, lambda index: some(builder.mul(index, constant(I64, TOGETHER)), TOGETHER))
    repeat(builder, builder.mul(whole, constant(I64, TOGETHER)), tile["tokens"], lambda token: some(token, 1))


def _multiplier(code: TileCode, builder: Builder, tile: Tile) -> Callable[[Value, int], None]:
    def some(first: Value, count: int) -> None:
        tokens = [builder.add(first, constant(I64, place)) for place in range(count)]
        there = {
            name: [builder.add(tile[name], builder.mul(token, tile[name + "_stride"])) for token in tokens]
            for name in ("x", "x_scales", "excess")
        }
        sums = [offset(builder, tile["sums"], token, 4 * TILE_ROWS) for token in tokens]

        def group(index: Value) -> None:
            products = _products(code, builder, tile, index, [offset(builder, x, index, GROUP) for x in there["x"]])
            for token in range(count):
                scale = splat(builder, load(builder, offset(builder, there["x_scales"][token], index, 4), F32), LANES)
                excess = splat(builder, load(builder, offset(builder, there["excess"][token], index, 4), I32), LANES)
                for half in range(HALVES):
                    total = code.finished(builder, products[token][half])
                    if code.bias:
                        total = builder.sub(total, excess)
                    at = builder.add(offset(builder, tile["scales"], index, 4 * TILE_ROWS), constant(I64, half * 4 * LANES))
                    scales = builder.fmul(load(builder, at, FLOATS), scale)
                    place = builder.add(sums[token], constant(I64, half * 4 * LANES))
                    store(builder, multiply_add(builder, builder.sitofp(total, FLOATS), scales, load(builder, place, FLOATS)), place)

        repeat(builder, constant(I64, 0), tile["groups"], group)

    return some


def _products(code: TileCode, builder: Builder, tile: Tile, group: Value, xs: list[Value]) -> list[list[Value]]:
    """[token][half]: sums of a group's steps."""
    totals = [[constant(code.sums, 0)] * HALVES for _ in xs]
    at = offset(builder, tile["weights"], group, GROUP_ROOM)
    for step in range(STEPS):
        weights = [load(builder, builder.add(at, constant(I64, step * STEP_BYTES + half * 4 * LANES)), BYTES) for half in range(HALVES)]
        for token, x in enumerate(xs):
            four = load(builder, builder.add(x, constant(I64, 4 * step)), I32)
            values = builder.bitcast(splat(builder, four, LANES), BYTES)
            for half in range(HALVES):
                totals[token][half] = code.add(builder, weights[half], values, totals[token][half])
    return totals


EMITS = (emit_unpack, emit_multiply)


class TileAddresses(NamedTuple):
    """Functions of the address of a TILE block, and what unpacked weights have too much."""

    unpack: int
    multiply: int
    bias: int


def tile_codes(target: Target | None = None) -> dict[FormatName, TileCode]:
    """The formats there is code for, on this process's target or another."""
    return {"int8": Int8Tile(), "int4": Int4TileInWords() if has_words(target or numba_target()) else Int4Tile()}


@cache
def compiled_tile(name: FormatName) -> tuple[TileAddresses, Library]:
    """The functions' addresses, and the library that must live as long as they are used."""
    made = library(f"tile-{name}", lambda target: emitted_tile(name, target))
    return tile_addresses(name, made), made


def tile_addresses(name: FormatName, made: Library) -> TileAddresses:
    """Where a library of `emitted_tile` has the functions."""
    unpack, multiply = (made.address(_function(name, emit)) for emit in EMITS)
    return TileAddresses(unpack, multiply, tile_codes()[name].bias)


def emitted_tile(name: FormatName, target: Target) -> Module:
    """Both functions, as `target` can run them."""
    module = Module(f"tile.{name}", target)
    for emit in EMITS:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64]), _function(name, emit))
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        emit(tile_codes(target)[name], builder, Tile(builder, function.args[0]))
        builder.ret_void()
    return module


def _function(name: FormatName, emit: Callable[..., None]) -> str:
    return f"thermocline_{name}_{emit.__name__}"
