"""Vector IR for many tokens: a tile of rows is unpacked once, then every token meets it from the nearest cache.

Unpacked, a lane is a row: a vector holds bytes 4m … 4m+3 of a group of as many rows as it has lanes, so four bytes of a token, the
same in every lane, meet them without a shuffle, and what a group adds up to is one lane a row. Tokens are laid out for this once
(`PREPARED_BYTES`). A row that few tokens want meets each of them alone (`emit_listed`). Knows two formats, no matrix and no threads.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
    joined,
    load,
    multiply_add,
    offset,
    pick,
    prefetch,
    repeat,
    splat,
    store,
    total,
    variable,
    vector,
)
from cpu_ops.kernels.machine_code import Library, library
from cpu_ops.kernels.target import Module, Target, numba_target
from models.bits import GROUP, FormatName

TILE_ROWS = 32
STEPS = GROUP // 4
STEP_BYTES = TILE_ROWS * 4
GROUP_ROOM = STEPS * STEP_BYTES  # bytes of an unpacked group of a tile
QUARTER = 16  # bytes of a row that are transposed at once
DEPTH = 16  # groups of a tile unpacked at once: 16 KiB, which stay in the first cache beside some tokens' input
# A token, DEPTH groups of it: values int8 [DEPTH · GROUP], what a group's product starts from int32 [DEPTH], scales float32 [DEPTH].
STARTS, SCALES = DEPTH * GROUP, DEPTH * (GROUP + 4)
PREPARED_BYTES = DEPTH * (GROUP + 8)
CHAINS = 4  # sums of a row and a token by itself, so that none waits for the one before
WIDE_VNNI = ("avx512f", "avx512bw", "avx512vl", "avx512vnni")

# What `unpack` and `multiply` are told. Addresses: `chosen` int64 [2 · TILE_ROWS, 2], weights and scales of the rows and of those to ask
# for; `weights` and `scales` the unpacked tile; `x` DEPTH groups of token 0, prepared; `sums` float32 [tokens, TILE_ROWS], added to.
TILE = np.dtype([(name, np.int64) for name in ("chosen", "first", "groups", "weights", "scales", "tokens", "sums", "x")])
# What `listed` is told: a row of `groups` groups, where it may be unpacked and its scales be widened; token 0 of all tokens, prepared,
# and the bytes to its next DEPTH groups; int32 [count] which tokens, and float32 [count] for the products.
LISTED = np.dtype(
    [(name, np.int64) for name in ("row", "row_scales", "groups", "room", "room_scales", "x", "x_stride", "tokens", "count", "out")]
)


class Shape(NamedTuple):
    """Lanes of a vector, vectors of weights and tokens that meet while in registers. `together` falls to 1."""

    lanes: int
    vectors: int
    together: tuple[int, ...]


WIDE = Shape(16, 2, (6, 4, 2, 1))  # 12 integer and 12 float sums, two of weights: of 32 registers
NARROW = Shape(8, 2, (4, 1))  # eight int16 sums, two vectors of weights, one of input fit sixteen registers


def shape_of(target: Target) -> Shape:
    return WIDE if is_wide(target) else NARROW


def is_wide(target: Target) -> bool:
    """Whether one instruction multiplies 64 bytes."""
    return all(target.has(feature) for feature in WIDE_VNNI)


class TileCode(ABC):
    """Emits what differs between formats."""

    group_bytes: int  # of the quants, as stored
    bias: int  # what unpacked weights have too much

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.bytes, self.ints, self.floats = (vector(kind, count * shape.lanes) for kind, count in ((I8, 4), (I32, 1), (F32, 1)))

    @abstractmethod
    def widened(self, builder: Builder, packed: list[Value]) -> list[Value]:
        """A group's stored bytes, four of a row in each lane -> STEPS vectors of weights."""

    @abstractmethod
    def row(self, builder: Builder, group: Value) -> Value:
        """The address of a stored group -> int8 [32], in order."""

    @abstractmethod
    def dot(self, builder: Builder, weights: Value, values: Value, sums: Value) -> Value:
        """sums int32 + weights · values, four bytes a lane."""

    def begun(self, start: Value) -> Value:
        """Where a group's sums start."""
        return start

    def add(self, builder: Builder, weights: Value, values: Value, sums: Value) -> Value:
        """A step's products onto the sums so far."""
        return self.dot(builder, weights, values, sums)

    def finished(self, builder: Builder, sums: Value, start: Value) -> Value:
        """A group's sums as int32."""
        return sums


class Int8Tile(TileCode):
    """As they are; where the one instruction wants unsigned bytes, 128 more."""

    group_bytes = GROUP

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.bias = 128 if shape is WIDE else 0

    def widened(self, builder: Builder, packed: list[Value]) -> list[Value]:
        return [self._lifted(builder, each) for each in packed]

    def row(self, builder: Builder, group: Value) -> Value:
        return self._lifted(builder, load(builder, group, vector(I8, GROUP)))

    def _lifted(self, builder: Builder, weights: Value) -> Value:
        return builder.xor(weights, constant(weights.type, 0x80)) if self.bias else weights

    def dot(self, builder: Builder, weights: Value, values: Value, sums: Value) -> Value:
        return (small_dot(builder, (weights,), (values,), sums)) if self.bias else byte_dot(builder, weights, values, sums)


class Int4Tile(TileCode):
    """Nibbles as they are, 0 … 15."""

    group_bytes = GROUP // 2
    bias = 8

    def widened(self, builder: Builder, packed: list[Value]) -> list[Value]:
        return [*(_low(builder, both) for both in packed), *(_high(builder, both) for both in packed)]

    def row(self, builder: Builder, group: Value) -> Value:
        both = load(builder, group, vector(I8, GROUP // 2))
        return joined(builder, _low(builder, both), _high(builder, both))

    def dot(self, builder: Builder, weights: Value, values: Value, sums: Value) -> Value:
        return small_dot(builder, (weights,), (values,), sums)


class Int4TileInWords(Int4Tile):
    """A group's int16 sums are at most 8 · 2 · 15 · 127 = 30,480, so one widening a group is enough."""

    def begun(self, start: Value) -> Value:
        return constant(vector(I16, 2 * self.shape.lanes), 0)

    def add(self, builder: Builder, weights: Value, values: Value, sums: Value) -> Value:
        return builder.add(sums, bytes_multiplied(builder, weights, values))

    def finished(self, builder: Builder, sums: Value, start: Value) -> Value:
        return builder.add(words_added(builder, sums), start)


def _low(builder: Builder, both: Value) -> Value:
    return builder.and_(both, constant(both.type, 15))


def _high(builder: Builder, both: Value) -> Value:
    """Shifted as words, which every target can."""
    words = vector(I32, both.type.count // 4)
    return _low(builder, builder.bitcast(builder.lshr(builder.bitcast(both, words), constant(words, 4)), both.type))


def _transposed(builder: Builder, rows: list[Value], at: int) -> list[Value]:
    """16 bytes of eight or sixteen rows -> four vectors, int32 m of every row, by shuffles that stay within four lanes."""
    lanes = len(rows)
    parts = [load(builder, builder.add(row, constant(I64, at)), vector(I32, 4)) for row in rows]
    # of quads[i], lanes 4b … 4b+3 are row 4b + i
    quads = [_all_joined(builder, [parts[4 * block + i] for block in range(lanes // 4)]) for i in range(4)]
    made = []
    for pair in (0, 2):
        a, b = (_woven(builder, quads[i], quads[i + 1], pair) for i in (0, 2))
        made += [_pairs_woven(builder, a, b, half) for half in (0, 2)]
    return made


def _all_joined(builder: Builder, parts: list[Value]) -> Value:
    while len(parts) > 1:
        parts = [joined(builder, *parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0]


def _woven(builder: Builder, a: Value, b: Value, first: int) -> Value:
    """Of every four lanes: a[first], b[first], a[first + 1], b[first + 1]."""
    return _shuffled(builder, a, b, lambda block, n: [block + first, n + block + first, block + first + 1, n + block + first + 1])


def _pairs_woven(builder: Builder, a: Value, b: Value, first: int) -> Value:
    """Of every four lanes: a[first], a[first + 1], b[first], b[first + 1]."""
    return _shuffled(builder, a, b, lambda block, n: [block + first, block + first + 1, n + block + first, n + block + first + 1])


def _shuffled(builder: Builder, a: Value, b: Value, four: Callable[[int, int], list[int]]) -> Value:
    lanes = [lane for block in range(0, a.type.count, 4) for lane in four(block, a.type.count)]
    return builder.shuffle_vector(a, b, ir.Constant(vector(I32, len(lanes)), [ir.Constant(I32, lane) for lane in lanes]))


class Fields:
    """A block's fields, as IR values."""

    def __init__(self, builder: Builder, kind: np.dtype[Any], address: Value) -> None:
        names = kind.names or ()
        self.values = {name: load(builder, builder.add(address, constant(I64, 8 * place)), I64) for place, name in enumerate(names)}

    def __getitem__(self, name: str) -> Value:
        return self.values[name]


def emit_unpack(code: TileCode, builder: Builder, address: Value) -> None:
    """Fills `weights` and `scales` with `groups` groups from the `first` of the chosen rows, and asks for those of the rows after them."""
    tile, lanes = Fields(builder, TILE, address), code.shape.lanes
    with builder.goto_entry_block():
        room = builder.ptrtoint(builder.alloca(ir.ArrayType(F32, lanes * DEPTH)), I64)
    for first_row in range(0, TILE_ROWS, lanes):
        weights, scales = [], []
        for row in range(first_row, first_row + lanes):
            at = builder.add(tile["chosen"], constant(I64, 16 * row))
            weights.append(offset(builder, load(builder, at, I64), tile["first"], code.group_bytes))
            scales.append(offset(builder, load(builder, builder.add(at, constant(I64, 8)), I64), tile["first"], 2))
        _unpack_weights(code, builder, tile, first_row, weights)
        _unpack_scales(code, builder, tile, first_row, scales, room)
    _ask_for_next(code, builder, tile)


def _unpack_weights(code: TileCode, builder: Builder, tile: Fields, first_row: int, rows: list[Value]) -> None:
    def one(group: Value) -> None:
        there = builder.add(offset(builder, tile["weights"], group, GROUP_ROOM), constant(I64, 4 * first_row))
        own = [offset(builder, row, group, code.group_bytes) for row in rows]
        packed = [each for at in range(0, code.group_bytes, QUARTER) for each in _transposed(builder, own, at)]
        for step, made in enumerate(code.widened(builder, [builder.bitcast(each, code.bytes) for each in packed])):
            store(builder, made, builder.add(there, constant(I64, step * STEP_BYTES)))

    repeat(builder, constant(I64, 0), tile["groups"], one)


def _unpack_scales(code: TileCode, builder: Builder, tile: Fields, first_row: int, rows: list[Value], room: Value) -> None:
    """Widened row by row and transposed; of fewer than DEPTH groups, one by one: what lies behind a row need not be memory."""
    there = builder.add(tile["scales"], constant(I64, 4 * first_row))
    with builder.if_else(builder.icmp_signed("==", tile["groups"], constant(I64, DEPTH))) as (all_of_them, some):
        with all_of_them:
            widened = [builder.add(room, constant(I64, 4 * DEPTH * place)) for place in range(len(rows))]
            for row, at in zip(rows, widened, strict=True):
                store(builder, halves_to_floats(builder, load(builder, row, vector(I16, DEPTH))), at)
            for first in range(0, DEPTH, 4):
                for place, made in enumerate(_transposed(builder, widened, 4 * first)):
                    store(builder, made, builder.add(there, constant(I64, 4 * TILE_ROWS * (first + place))))
        with some:

            def one(group: Value) -> None:
                bits = ir.Constant(vector(I16, len(rows)), ir.Undefined)
                for lane, row in enumerate(rows):
                    bits = builder.insert_element(bits, load(builder, offset(builder, row, group, 2), I16), constant(I32, lane))
                store(builder, halves_to_floats(builder, bits), offset(builder, there, group, 4 * TILE_ROWS))

            repeat(builder, constant(I64, 0), tile["groups"], one)


def _ask_for_next(code: TileCode, builder: Builder, tile: Fields) -> None:
    size = builder.mul(tile["groups"], constant(I64, code.group_bytes))

    def ask(row: Value) -> None:
        at = offset(builder, builder.add(tile["chosen"], constant(I64, 16 * TILE_ROWS)), row, 16)
        weights = offset(builder, load(builder, at, I64), tile["first"], code.group_bytes)
        lines = builder.udiv(builder.add(size, constant(I64, CACHE_LINE - 1)), constant(I64, CACHE_LINE))
        repeat(builder, constant(I64, 0), lines, lambda line: prefetch(builder, offset(builder, weights, line, CACHE_LINE)))
        prefetch(builder, offset(builder, load(builder, builder.add(at, constant(I64, 8)), I64), tile["first"], 2))

    repeat(builder, constant(I64, 0), constant(I64, TILE_ROWS), ask)


def emit_multiply(code: TileCode, builder: Builder, address: Value) -> None:
    """sums += unpacked rows · x, group after group for each token: its bits do not depend on the others."""
    tile = Fields(builder, TILE, address)
    for first_row in range(0, TILE_ROWS, code.shape.lanes * code.shape.vectors):
        done: Value = constant(I64, 0)
        for count in code.shape.together:
            blocks = builder.udiv(builder.sub(tile["tokens"], done), constant(I64, count))
            some = _multiplier(code, builder, tile, first_row, count, done)
            repeat(builder, constant(I64, 0), blocks, some)
            done = builder.add(done, builder.mul(blocks, constant(I64, count)))


def _multiplier(code: TileCode, builder: Builder, tile: Fields, first_row: int, count: int, done: Value) -> Callable[[Value], None]:
    vectors, lanes = range(code.shape.vectors), code.shape.lanes

    def some(block: Value) -> None:
        first = builder.add(done, builder.mul(block, constant(I64, count)))
        xs = [builder.add(offset(builder, tile["x"], first, PREPARED_BYTES), constant(I64, t * PREPARED_BYTES)) for t in range(count)]
        own = builder.add(offset(builder, tile["sums"], first, 4 * TILE_ROWS), constant(I64, 4 * first_row))
        places = [[builder.add(own, constant(I64, 4 * (TILE_ROWS * t + lanes * v))) for v in vectors] for t in range(count)]
        sums = [[variable(builder, load(builder, place, code.floats)) for place in each] for each in places]

        def group(index: Value) -> None:
            at = builder.add(offset(builder, tile["scales"], index, 4 * TILE_ROWS), constant(I64, 4 * first_row))
            scales = [load(builder, builder.add(at, constant(I64, 4 * lanes * v)), code.floats) for v in vectors]
            products = _products(code, builder, tile, first_row, index, xs)
            for x, totals, own_sums in zip(xs, products, sums, strict=True):
                scale = splat(builder, load(builder, builder.add(offset(builder, x, index, 4), constant(I64, SCALES)), F32), lanes)
                for v in vectors:
                    made = builder.sitofp(totals[v], code.floats)
                    builder.store(multiply_add(builder, made, builder.fmul(scales[v], scale), builder.load(own_sums[v])), own_sums[v])

        repeat(builder, constant(I64, 0), tile["groups"], group)
        for each, own_sums in zip(places, sums, strict=True):
            for place, own_sum in zip(each, own_sums, strict=True):
                store(builder, builder.load(own_sum), place)

    return some


def _products(code: TileCode, builder: Builder, tile: Fields, first_row: int, group: Value, xs: Sequence[Value]) -> list[list[Value]]:
    """[token][vector]: sums of a group's steps."""
    vectors, lanes = range(code.shape.vectors), code.shape.lanes
    starts = [splat(builder, load(builder, builder.add(offset(builder, x, group, 4), constant(I64, STARTS)), I32), lanes) for x in xs]
    totals = [[code.begun(start) for _ in vectors] for start in starts]
    at = builder.add(offset(builder, tile["weights"], group, GROUP_ROOM), constant(I64, 4 * first_row))
    for step in range(STEPS):
        weights = [load(builder, builder.add(at, constant(I64, step * STEP_BYTES + 4 * lanes * v)), code.bytes) for v in vectors]
        for x, sums in zip(xs, totals, strict=True):
            four = load(builder, builder.add(offset(builder, x, group, GROUP), constant(I64, 4 * step)), I32)
            values = builder.bitcast(splat(builder, four, lanes), code.bytes)
            for v in vectors:
                sums[v] = code.add(builder, weights[v], values, sums[v])
    return [[code.finished(builder, each, start) for each in sums] for sums, start in zip(totals, starts, strict=True)]


def emit_listed(code: TileCode, builder: Builder, address: Value) -> None:
    """out = the row · each listed token, in an order of its own: the row is unpacked once, each token alone meets it."""
    call = Fields(builder, LISTED, address)

    def unpack(group: Value) -> None:
        store(
            builder, code.row(builder, offset(builder, call["row"], group, code.group_bytes)), offset(builder, call["room"], group, GROUP)
        )
        half = load(builder, offset(builder, call["row_scales"], group, 2), vector(I16, 1))
        store(builder, halves_to_floats(builder, half), offset(builder, call["room_scales"], group, 4))

    def unpack_some(index: Value) -> None:
        first = builder.mul(index, constant(I64, DEPTH))
        for place in range(DEPTH):
            at = builder.add(first, constant(I64, place))
            made = code.row(builder, offset(builder, call["row"], at, code.group_bytes))
            store(builder, made, offset(builder, call["room"], at, GROUP))
        halves = load(builder, offset(builder, call["row_scales"], first, 2), vector(I16, DEPTH))
        store(builder, halves_to_floats(builder, halves), offset(builder, call["room_scales"], first, 4))

    whole = builder.udiv(call["groups"], constant(I64, DEPTH))
    repeat(builder, constant(I64, 0), whole, unpack_some)
    repeat(builder, builder.mul(whole, constant(I64, DEPTH)), call["groups"], unpack)

    def one(place: Value) -> None:
        token = builder.sext(load(builder, offset(builder, call["tokens"], place, 4), I32), I64)
        x = offset(builder, call["x"], token, PREPARED_BYTES)
        store(builder, _listed_product(code, builder, call, x, whole), offset(builder, call["out"], place, 4))

    repeat(builder, constant(I64, 0), call["count"], one)


def _listed_product(code: TileCode, builder: Builder, call: Fields, x: Value, whole: Value) -> Value:
    """One row · one token: DEPTH groups at a time, then group by group."""
    lanes = code.shape.lanes
    groups_at_once = 4 * lanes // GROUP
    chains = [variable(builder, constant(code.floats, 0.0)) for _ in range(CHAINS)]
    excess, rest = variable(builder, constant(vector(F32, DEPTH), 0.0)), variable(builder, constant(F32, 0.0))

    def some(index: Value) -> None:
        there = builder.add(x, builder.mul(index, call["x_stride"]))
        own = load(builder, offset(builder, call["room_scales"], index, 4 * DEPTH), vector(F32, DEPTH))
        scales = builder.fmul(own, load(builder, builder.add(there, constant(I64, SCALES)), own.type))
        if code.bias:
            starts = builder.sitofp(load(builder, builder.add(there, constant(I64, STARTS)), vector(I32, DEPTH)), own.type)
            builder.store(multiply_add(builder, starts, scales, builder.load(excess)), excess)
        for place in range(0, DEPTH, groups_at_once):
            at = builder.add(offset(builder, call["room"], index, DEPTH * GROUP), constant(I64, place * GROUP))
            values = load(builder, builder.add(there, constant(I64, place * GROUP)), code.bytes)
            made = builder.sitofp(code.dot(builder, load(builder, at, code.bytes), values, constant(code.ints, 0)), code.floats)
            spread = pick(builder, scales, [place + lane * 4 // GROUP for lane in range(lanes)])
            chain = chains[place // groups_at_once % CHAINS]
            builder.store(multiply_add(builder, made, spread, builder.load(chain)), chain)

    def one(group: Value) -> None:
        there = builder.add(x, builder.mul(whole, call["x_stride"]))
        place = builder.sub(group, builder.mul(whole, constant(I64, DEPTH)))
        weights = load(builder, offset(builder, call["room"], group, GROUP), vector(I8, GROUP))
        values = load(builder, offset(builder, there, place, GROUP), weights.type)
        made = code.dot(builder, weights, values, constant(vector(I32, STEPS), 0))
        start = load(builder, builder.add(offset(builder, there, place, 4), constant(I64, STARTS)), I32)
        exact = builder.add(_lanes_added(builder, made), start)
        scale = builder.fmul(
            load(builder, offset(builder, call["room_scales"], group, 4), F32),
            load(builder, builder.add(offset(builder, there, place, 4), constant(I64, SCALES)), F32),
        )
        builder.store(multiply_add(builder, builder.sitofp(exact, F32), scale, builder.load(rest)), rest)

    repeat(builder, constant(I64, 0), whole, some)
    repeat(builder, builder.mul(whole, constant(I64, DEPTH)), call["groups"], one)
    a, b, c, d = (builder.load(chain) for chain in chains)
    products = total(builder, builder.fadd(builder.fadd(a, b), builder.fadd(c, d)))
    return builder.fadd(builder.fadd(products, total(builder, builder.load(excess))), builder.load(rest))


def _lanes_added(builder: Builder, a: Value) -> Value:
    while (half := a.type.count // 2) >= 1:
        a = builder.add(pick(builder, a, range(half)), pick(builder, a, range(half, 2 * half)))
    return builder.extract_element(a, constant(I32, 0))


EMITS = (emit_unpack, emit_multiply, emit_listed)


class TileAddresses(NamedTuple):
    """Functions of the address of a TILE block, of a LISTED block, and what unpacked weights have too much."""

    unpack: int
    multiply: int
    listed: int
    bias: int


def tile_codes(target: Target | None = None) -> dict[FormatName, TileCode]:
    """The formats there is code for, on this process's target or another."""
    target = target or numba_target()
    shape = shape_of(target)
    return {"int8": Int8Tile(shape), "int4": Int4TileInWords(shape) if has_words(target) else Int4Tile(shape)}


@cache
def compiled_tile(name: FormatName) -> tuple[TileAddresses, Library]:
    """The functions' addresses, and the library that must live as long as they are used."""
    made = library(f"tile-{name}", lambda target: emitted_tile(name, target))
    return tile_addresses(name, made, numba_target()), made


def tile_addresses(name: FormatName, made: Library, target: Target) -> TileAddresses:
    """Where a library of `emitted_tile` for `target` has the functions."""
    unpack, multiply, listed = (made.address(_function(name, emit)) for emit in EMITS)
    return TileAddresses(unpack, multiply, listed, tile_codes(target)[name].bias)


def emitted_tile(name: FormatName, target: Target) -> Module:
    """All functions, as `target` can run them."""
    module = Module(f"tile.{name}", target)
    for emit in EMITS:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64]), _function(name, emit))
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        emit(tile_codes(target)[name], builder, function.args[0])
        builder.ret_void()
    return module


def _function(name: FormatName, emit: Callable[..., None]) -> str:
    return f"thermocline_{name}_{emit.__name__}"
