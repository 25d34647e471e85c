"""Modules of vector IR made into machine code, which is kept on disk. Knows no arithmetic and no format.

Not through Numba's libraries: they optimise a module twice, which takes twice as long (int4 rows: 0.9 s, here 0.4 s), and
cannot be asked for another target's code.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite
from llvmlite import binding
from numba.core.compiler_lock import global_compiler_lock

from cpu_ops.kernels.compile import cache_folder
from cpu_ops.kernels.target import Module, Target, numba_target
from models.errors import DiskFilled
from models.paths import whole_file

FASTEST = 3  # LLVM's level of optimisation


class Library:
    """Machine code in memory; its functions may be called as long as it lives."""

    def __init__(self, code: bytes, target: Target) -> None:
        nothing = binding.parse_assembly(f'target triple = "{target.triple}"')
        self._engine = binding.create_mcjit_compiler(nothing, machine(target))
        self._engine.add_object_file(binding.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        return int(self._engine.get_function_address(name))


@global_compiler_lock  # type: ignore[untyped-decorator]
def library(name: str, emit: Callable[[Target], Module]) -> Library:
    """What `emit` writes for this process; compiled, or read from the disk, where `name` tells it from others of the same sources."""
    target = numba_target()
    place = cache_folder() / f"{name}-{_digest(target)}.o"
    if place.exists():
        return Library(place.read_bytes(), target)
    code = object_code(str(emit(target)), target)
    _keep(code, place)
    return Library(code, target)


def _keep(code: bytes, place: Path) -> None:
    """On a full disk it is compiled again next time."""
    with suppress(OSError, DiskFilled), whole_file(place) as part:
        part.write_bytes(code)


def object_code(text: str, target: Target) -> bytes:
    """A module's text -> machine code."""
    return bytes(machine(target).emit_object(optimised(text, target)))


def optimised(text: str, target: Target) -> Any:
    """A module's text -> LLVM's module of it, optimised."""
    module = binding.parse_assembly(text)
    tuning = binding.create_pipeline_tuning_options(speed_level=FASTEST)
    tuning.slp_vectorization = False  # code comes in vectors
    builder = binding.create_pass_builder(machine(target), tuning)
    builder.getModulePassManager().run(module, builder)
    return module


def machine(target: Target) -> Any:
    """LLVM's compiler for a target, told what Numba tells it."""
    known = binding.Target.from_triple(target.triple)
    relocation = "static" if target.triple.startswith("x86") else "default"
    options = {"opt": FASTEST, "reloc": relocation, "codemodel": "jitdefault", "jit": True}
    return known.create_target_machine(cpu=target.cpu, features=target.features, **options)


def _digest(target: Target) -> str:
    parts = (llvmlite.__version__, *target)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
