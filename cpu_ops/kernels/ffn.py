"""The naked loops of a bank's FFN on few tokens: gate, select, up, down in one parallel region, a merge in a second.

Neurons are dealt in blocks to PARTS parts, each with an accumulator of its own; the parts are merged in their order. So a
token's bits depend on the bank alone: not on the threads, not on the other tokens of the call.
"""

from typing import Any, NamedTuple

import numba
import numpy as np

from cpu_ops.kernels.activation import GATED, PLAIN, KernelRule, RuleCodes, activate
from cpu_ops.kernels.compile import SERIAL_WEIGHTS, inner, kernel
from cpu_ops.kernels.rows import KernelInput, KernelRows, address_of, ask, axpy, axpy_two, dot

Floats = np.ndarray[Any, np.dtype[np.float32]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

PARTS = 32  # at most: more than the threads that a memory bus can feed, few enough to merge
BLOCK = 16  # neurons dealt at once: hot neurons come first, so long runs would give one thread all the work


class KernelBank(NamedTuple):
    """`first` decides whether a neuron fires: gate, or up when there is no gate (then `second` is not read).

    A bias is float32 [N], or empty when there is none.
    """

    first: KernelRows
    second: KernelRows
    down: KernelRows
    first_bias: Floats
    second_bias: Floats
    n: int


@inner
def _select(bank: KernelBank, block: int, x: KernelInput, k: int, rule: KernelRule, h: Floats, passed: Indices) -> int:
    """Activations of `first` for a block's neurons; those that pass for some token are kept, and their other rows asked for."""
    count = 0
    for i in range(block * BLOCK, min((block + 1) * BLOCK, bank.n)):
        passes = False
        for token in range(h.shape[1]):
            z = dot(bank.first, i, x, token, k)
            if len(bank.first_bias) > 0:
                z += bank.first_bias[i]
            h[count, token] = activate(z, rule)
            passes |= h[count, token] != 0
        if passes:
            if rule.codes.kind != PLAIN:
                ask(bank.second, i, k)
            ask(bank.down, i, k)
            passed[count] = i
            count += 1
    return count


@inner
def _multiply(bank: KernelBank, x: KernelInput, k: int, rule: KernelRule, h: Floats, passed: Indices, count: int) -> None:
    """h *= up (or its activation) for the tokens where the gate passed."""
    for place in range(count):
        i = passed[place]
        for token in range(h.shape[1]):
            if h[place, token] != 0:
                z = dot(bank.second, i, x, token, k)
                if len(bank.second_bias) > 0:
                    z += bank.second_bias[i]
                h[place, token] *= z if rule.codes.kind == GATED else activate(z, rule)


@inner
def _add_down(bank: KernelBank, k: int, h: Floats, passed: Indices, count: int, out: int) -> None:
    """out[T, k] += h · down for the neurons that fire, two rows at a time. `out` is an address."""
    for place in range(0, count, 2):
        other = min(place + 1, count - 1)
        i, j = passed[place], passed[other]
        for token in range(h.shape[1]):
            h_i = h[place, token]
            h_j = h[other, token] if other > place else np.float32(0.0)
            if h_i != 0 and h_j != 0:
                axpy_two(bank.down, i, h_i, j, h_j, out + token * k * 4, k)
            elif h_i != 0:
                axpy(bank.down, i, h_i, out + token * k * 4, k)
            elif h_j != 0:
                axpy(bank.down, j, h_j, out + token * k * 4, k)


@inner
def _ffn_part(bank: KernelBank, part: int, x: KernelInput, rule: KernelRule, sums: Floats) -> None:
    """sums[part, T, K] = what the part's blocks add."""
    parts, tokens, k = sums.shape
    for token in range(tokens):
        for column in range(k):
            sums[part, token, column] = 0
    h = np.empty((BLOCK, tokens), np.float32)
    passed = np.empty(BLOCK, np.int64)
    for block in range(part, (bank.n + BLOCK - 1) // BLOCK, parts):
        count = _select(bank, block, x, k, rule, h, passed)
        if rule.codes.kind != PLAIN:
            _multiply(bank, x, k, rule, h, passed, count)
        _add_down(bank, k, h, passed, count, address_of(sums) + part * tokens * k * 4)


@inner
def _merge_part(sums: Floats, first: int, last: int, out: Floats) -> None:
    """out[T, first:last] = the parts' sums, added in their order."""
    for token in range(len(out)):
        for column in range(first, last):
            out[token, column] = sums[0, token, column]
        for part in range(1, len(sums)):
            for column in range(first, last):
                out[token, column] += sums[part, token, column]


@kernel
def ffn(
    first: KernelRows,
    second: KernelRows,
    down: KernelRows,
    first_bias: Floats,
    second_bias: Floats,
    n: int,
    x: KernelInput,
    codes: RuleCodes,
    threshold: float,
    out: Floats,
) -> None:
    """out[T, K] = what the neurons of a bank add. (A parallel loop carries no tuples of tuples: they are made inside.)"""
    tokens, k = out.shape
    parts = max(1, min(PARTS, n // (4 * BLOCK)))
    sums = np.empty((parts, tokens, k), np.float32)
    if n * k * tokens <= SERIAL_WEIGHTS:
        bank = KernelBank(first, second, down, first_bias, second_bias, n)
        for part in range(parts):
            _ffn_part(bank, part, x, KernelRule(codes, threshold), sums)
        _merge_part(sums, 0, k, out)
        return
    for part in numba.prange(parts):
        bank = KernelBank(first, second, down, first_bias, second_bias, n)
        _ffn_part(bank, part, x, KernelRule(codes, threshold), sums)
    for part in numba.prange(parts):
        _merge_part(sums, part * k // parts, (part + 1) * k // parts, out)
