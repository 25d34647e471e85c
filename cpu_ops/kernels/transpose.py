"""Vectors of 32-bit words turned, so that a lane is what was a block of four words. Knows no format.

By shuffles within 16 bytes, which cost the least of all.
"""

from collections.abc import Sequence

from llvmlite import ir

from cpu_ops.kernels.ir import I32, Builder, Value, vector

WORDS, WORD_BYTES = 4, 4  # of a block


def transposed(builder: Builder, vectors: Sequence[Value]) -> list[Value]:
    """Four vectors of blocks -> the first words of all blocks, the second, …; lane 4j + i is block j of vector i."""
    a, b, c, d = vectors
    halves = [(interleaved(builder, a, b, half, 1), interleaved(builder, c, d, half, 1)) for half in (0, 1)]
    return [interleaved(builder, x, y, half, 2) for x, y in halves for half in (0, 1)]


def interleaved(builder: Builder, a: Value, b: Value, half: int, run: int) -> Value:
    """In every four words: `run` words of this half of `a`, as many of `b`, and so on."""
    lanes, first = a.type.count, 2 * half
    four = [0, lanes, 1, lanes + 1] if run == 1 else [0, 1, lanes, lanes + 1]
    mask = [start + first + lane for start in range(0, lanes, WORDS) for lane in four]
    return builder.shuffle_vector(a, b, ir.Constant(vector(I32, lanes), [ir.Constant(I32, lane) for lane in mask]))
