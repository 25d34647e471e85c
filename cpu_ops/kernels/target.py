"""Which CPU code is made for: Numba's, unless a module was begun for another. Compiles nothing."""

from functools import cache
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core.registry import cpu_target


class Target(NamedTuple):
    """`features` like "+avx2,-f16c": what code may use, whatever the CPU is called."""

    triple: str
    cpu: str
    features: str

    def has(self, feature: str) -> bool:
        return f"+{feature}" in self.features.split(",")


class Module(ir.Module):  # type: ignore[misc]  # llvmlite has no types
    """A module that knows its target."""

    def __init__(self, name: str, target: Target) -> None:
        super().__init__(name)
        self.triple = target.triple
        self.target = target


@cache
def numba_target() -> Target:
    """The host, unless NUMBA_CPU_NAME or NUMBA_CPU_FEATURES narrow it."""
    return Target(*(str(part) for part in cpu_target.target_context.codegen().magic_tuple()))


def target_of(builder: Any) -> Target:
    """What the code that is being written will run on."""
    module = builder.module
    return module.target if isinstance(module, Module) else numba_target()
