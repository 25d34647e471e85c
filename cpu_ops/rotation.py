"""`rotation` on the CPU."""

from torch import Tensor

from cpu_ops.describe import float_bits, indices_at
from cpu_ops.kernels.angles import angles
from cpu_ops.tape import fresh, run
from models.layers import Rotary, Rotation


def rotation(rotary: Rotary, positions: Tensor) -> Rotation:
    """That of positions int64 [T]. A token's bits are its own."""
    tokens, half = len(positions), len(rotary.frequencies)
    cos, sin = fresh(tokens, 1, half), fresh(tokens, 1, half)
    places = (indices_at(positions), tokens, rotary.frequencies.data_ptr(), half, cos.data_ptr(), sin.data_ptr())
    run(angles, *places, float_bits(rotary.factor))
    return Rotation(cos, sin)


def compile_kernel() -> None:
    """A call with nothing to do."""
    run(angles, *[0] * 7)
