"""A format's code for many tokens as machine code: functions of the address of a block of numbers."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from llvmlite import ir

from cpu_ops.kernels.ir import I64
from cpu_ops.kernels.machine_code import Library, library
from cpu_ops.kernels.target import Module, Target, numba_target
from cpu_ops.kernels.tile_code import tile_codes
from cpu_ops.kernels.tile_listed import emit_listed
from cpu_ops.kernels.tile_product import emit_multiply
from cpu_ops.kernels.tile_unpack import emit_unpack
from models.bits import FormatName

EMITS = (emit_unpack, emit_multiply, emit_listed)


class TileAddresses(NamedTuple):
    """Functions of the address of a TILE block, of a LISTED block, and what unpacked weights have too much."""

    unpack: int
    multiply: int
    listed: int
    bias: int


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
