"""What a format has to say to have kernels: code for the few things done with stored rows.

Each is a small function of addresses, compiled by itself; kernels call it through its address. So kernels are compiled once for
all formats, and a format is compiled in half a second, once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

from llvmlite import ir

from cpu_ops.kernels.ir import CACHE_LINE, F32, I64, Builder, Value, constant, load, offset, prefetch, repeat, store, variable, vector
from cpu_ops.kernels.machine_code import Library, library
from cpu_ops.kernels.target import Module, Target

VOID = ir.VoidType()
LISTED_BYTES = 24  # of a row in a list
AHEAD_LEVEL = 1
ROWS_TOGETHER = (1,)
TOKENS_TOGETHER = (4, 3, 2, 1)  # that meet a row in one pass over it


class Row(NamedTuple):
    """A row: addresses of its weights and of its scales, as IR values; or an input vector: of its values and of their scales.

    `far`: how many bytes ahead memory is asked for while the row is read, as many as are read; None: it is not. `listed`: where these three
    stand.
    """

    weights: Value
    scales: Value
    far: Value | None = None
    listed: Value | None = None


class Ahead:
    """Asks for what lies ahead of rows that are read side by side, one row after the other: memory gives one stream more than eight.

    listed: of the first row; `pieces` of `piece_bytes` a row are asked for.
    """

    def __init__(self, builder: Builder, listed: Value, pieces: Value, piece_bytes: int) -> None:
        self._builder, self._pieces, self._piece_bytes = builder, pieces, piece_bytes
        self._row, self._piece = variable(builder, listed), variable(builder, constant(I64, 0))

    def ask(self) -> None:
        """For the next piece: as often as there are rows and pieces."""
        builder = self._builder
        listed, piece = builder.load(self._row), builder.load(self._piece)
        weights, _, far = (load(builder, builder.add(listed, constant(I64, 8 * place)), I64) for place in range(3))
        at = offset(builder, builder.add(weights, far), piece, self._piece_bytes)
        for line in range(0, self._piece_bytes, CACHE_LINE):
            prefetch(builder, builder.add(at, constant(I64, line)), AHEAD_LEVEL)
        following = builder.add(piece, constant(I64, 1))
        over = builder.icmp_signed("==", following, self._pieces)
        builder.store(builder.select(over, constant(I64, 0), following), self._piece)
        builder.store(builder.select(over, builder.add(listed, constant(I64, LISTED_BYTES)), listed), self._row)


class RowCode(ABC):
    """Emits one format's code. Every loop adds in an order that depends on `k` alone, and for `axpy` on the order of the rows.

    What rows add up to is kept as raw sums, float32 [raw_floats(k)] that begin as zeros, in whatever order suits the format;
    raw sums of several parts may be added; `settle` puts them in the order of the weights.
    """

    name: ClassVar[str]

    def prepared_bytes(self, k: int) -> int:
        """Bytes of an input prepared for `products`. 0: it needs no preparing, values are multiplied as they are."""
        return 0

    @abstractmethod
    def prepare(self, builder: Builder, x: Row, prepared: Value, k: Value) -> None:
        """Lays an input out as `products` reads it."""

    @abstractmethod
    def products(self, builder: Builder, rows: Sequence[Row], xs: Sequence[Value], k: Value) -> list[list[Value]]:
        """row · x -> float32 for each row and each prepared x, the same bits whatever the others."""

    @abstractmethod
    def rows_together(self, builder: Builder) -> tuple[int, ...]:
        """How many rows a pass over the raw sums adds: as many as possible of the first number, then of the next, …; the last is 1."""

    @abstractmethod
    def axpy(self, builder: Builder, rows: Sequence[Row], factors: Sequence[Value], raw: Value, k: Value) -> None:
        """raw += factor · row, one row after the other, in one pass over `raw`."""

    @abstractmethod
    def plane_bytes(self, builder: Builder, k: Value) -> tuple[Value, Value]:
        """Bytes of a row's weights and of its scales."""

    def raw_floats(self, k: int) -> int:
        """float32 numbers of raw sums."""
        return k

    def settle(self, builder: Builder, raw: Value, out: Value, k: Value) -> None:
        """out float32 [k] = what raw sums stand for."""

        def move(index: Value) -> None:
            store(builder, load(builder, offset(builder, raw, index, 4), vector(F32, 1)), offset(builder, out, index, 4))

        repeat(builder, constant(I64, 0), k, move)


class Addresses(NamedTuple):
    """The functions of a format. A row is two int64 addresses: weights, scales.

    Where there are several, `rows` is an address of int64 [count, 3]: those two, and how many bytes ahead of a row is asked for what is
    read next.
    prepare(x, x_scales, prepared, k) for products(rows, count, prepared, prepared_stride, tokens, out, out_row, out_token, k): row · x
    for each row and token; strides in bytes.
    axpys(rows, factors, count, raw, k): raw += factor · row, in order; factors float32 [count].
    settle(raw, out, k).
    ask(row, k) prefetches every cache line of a row, its scales too.
    """

    axpys: int
    settle: int
    ask: int
    prepare: int
    products: int


@cache
def compiled(code: RowCode) -> tuple[Addresses, Library]:
    """The functions' addresses, and the library that must live as long as they are used."""
    made = library(code.name, lambda target: emitted(code, target))
    return addresses(code, made), made


def addresses(code: RowCode, made: Library) -> Addresses:
    """Where a library of `emitted` has the functions."""
    return Addresses(*(made.address(_name(code, field)) for field in Addresses._fields))


def emitted(code: RowCode, target: Target) -> Module:
    """All functions of a format, as `target` can run them."""
    module = Module(code.name, target)
    for field, emit in zip(Addresses._fields, (_axpys, _settle, _ask, _prepare, _products), strict=True):
        result, kinds, body = emit(code)
        function = ir.Function(module, ir.FunctionType(result, kinds), _name(code, field))
        body(ir.IRBuilder(function.append_basic_block("entry")), *function.args)
    return module


def _name(code: RowCode, field: str) -> str:
    return f"thermocline_{code.name}_{field}"


def _at(builder: Builder, address: Value, place: Value, stride: Value) -> Value:
    return builder.add(address, builder.mul(place, stride))


def _in_blocks(builder: Builder, count: Value, sizes: Sequence[int], body: Callable[[list[Value]], None]) -> None:
    """body(indices) over 0 … count: as many blocks of the first size as there are, then of the next, …"""
    done = constant(I64, 0)
    for size in sizes:
        first, blocks = done, builder.udiv(builder.sub(count, done), constant(I64, size))

        def block(index: Value, first: Value = first, size: int = size) -> None:
            start = builder.add(first, builder.mul(index, constant(I64, size)))
            body([builder.add(start, constant(I64, place)) for place in range(size)])

        repeat(builder, constant(I64, 0), blocks, block)
        done = builder.add(first, builder.mul(blocks, constant(I64, size)))


def _prepare(code: RowCode) -> Any:
    def body(builder: Builder, x: Value, x_scales: Value, prepared: Value, k: Value) -> None:
        code.prepare(builder, Row(x, x_scales), prepared, k)
        builder.ret_void()

    return VOID, [I64] * 4, body


def _products(code: RowCode) -> Any:
    """A token alone meets several rows at once; of several, those that meet a row together meet one row after the other: so the tokens
    stay in the first cache, and rows wait in the second for the next tokens."""

    def body(builder: Builder, *arguments: Value) -> None:
        table, count, prepared, stride, tokens, out, out_row, out_token, k = arguments

        def some(rows: list[Value], places: list[Value]) -> None:
            xs = [_at(builder, prepared, place, stride) for place in places]
            found = code.products(builder, [_row_at(builder, offset(builder, table, row, LISTED_BYTES)) for row in rows], xs, k)
            for row, results in zip(rows, found, strict=True):
                for place, result in zip(places, results, strict=True):
                    store(builder, result, _at(builder, _at(builder, out, row, out_row), place, out_token))

        zero, alone = constant(I64, 0), builder.icmp_signed("==", tokens, constant(I64, 1))
        _in_blocks(builder, builder.select(alone, count, zero), ROWS_TOGETHER, lambda rows: some(rows, [zero]))
        each_row = builder.select(alone, zero, count)
        _in_blocks(builder, tokens, TOKENS_TOGETHER, lambda places: repeat(builder, zero, each_row, lambda row: some([row], places)))
        builder.ret_void()

    return VOID, [I64] * 9, body


def _axpys(code: RowCode) -> Any:
    def body(builder: Builder, rows: Value, factors: Value, count: Value, raw: Value, k: Value) -> None:
        def some(places: list[Value]) -> None:
            chosen = [_row_at(builder, offset(builder, rows, place, LISTED_BYTES)) for place in places]
            given = [load(builder, offset(builder, factors, place, 4), F32) for place in places]
            code.axpy(builder, chosen, given, raw, k)

        _in_blocks(builder, count, code.rows_together(builder), some)
        builder.ret_void()

    return VOID, [I64] * 5, body


def _row_at(builder: Builder, address: Value) -> Row:
    weights, scales, far = (load(builder, builder.add(address, constant(I64, 8 * place)), I64) for place in range(3))
    return Row(weights, scales, far, address)


def _settle(code: RowCode) -> Any:
    def body(builder: Builder, raw: Value, out: Value, k: Value) -> None:
        code.settle(builder, raw, out, k)
        builder.ret_void()

    return VOID, [I64] * 3, body


def _ask(code: RowCode) -> Any:
    def body(builder: Builder, weights: Value, scales: Value, k: Value) -> None:
        for address, size in zip((weights, scales), code.plane_bytes(builder, k), strict=True):
            _ask_lines(builder, address, size)
        builder.ret_void()

    return VOID, [I64, I64, I64], body


def _ask_lines(builder: Builder, address: Value, size: Value) -> None:
    """Every line that has a byte of the plane: rows begin anywhere."""
    inside = builder.and_(address, constant(I64, CACHE_LINE - 1))
    reach = builder.add(builder.add(inside, size), constant(I64, CACHE_LINE - 1))
    lines = builder.select(builder.icmp_signed("==", size, constant(I64, 0)), size, builder.udiv(reach, constant(I64, CACHE_LINE)))
    repeat(builder, constant(I64, 0), lines, lambda line: prefetch(builder, offset(builder, address, line, CACHE_LINE)))
