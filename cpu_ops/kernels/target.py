"""What Numba compiles for."""

from typing import Any

from numba.core.registry import cpu_target


def codegen() -> Any:
    """Numba's own compiler of LLVM modules for this process."""
    return cpu_target.target_context.codegen()


def target_features() -> list[str]:
    """Like "+avx2": the host's features, unless NUMBA_CPU_NAME or NUMBA_CPU_FEATURES narrow them."""
    _triple, _cpu, features = codegen().magic_tuple()
    return str(features).split(",")
