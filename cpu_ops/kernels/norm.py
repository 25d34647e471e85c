"""The naked loops of a root-mean-square norm and of a layer norm. They add in an order that depends on the width alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from cpu_ops.kernels.compile import SERIAL_WEIGHTS, exact_inner, exact_kernel, intrinsic
from cpu_ops.kernels.ir import F32, I64, Builder, Value, constant, load, multiply_add, offset, repeat, splat, total, variable, vector
from cpu_ops.kernels.region import in_parallel
from cpu_ops.kernels.rows import block_at, floats_at

LANES, UNROLLED = 8, 4
STEP = LANES * UNROLLED

# Where float32 x [tokens, width] lies, and the bytes from one token to the next; weight and bias [width], the bias for a layer norm
# only; out [tokens, width].
CALL = np.dtype([(name, np.int64) for name in ("x", "x_stride", "weight", "bias", "tokens", "width", "out")] + [("eps", np.float64)])
call_at = block_at(CALL)
Term = Callable[[Builder, Value, Value, Value], Value]  # (builder, sum, x, shift) -> the sum with what a number adds to it


def _emit_added(term: Term, builder: Builder, address: Value, n: Value, shift: Value) -> Value:
    """Sums of whole steps, UNROLLED of them, and of the rest."""
    sums = [variable(builder, constant(vector(F32, LANES), 0.0)) for _ in range(UNROLLED)]
    rest = variable(builder, constant(vector(F32, 1), 0.0))

    def add(sum_at: Value, index: Value, lanes: int) -> None:
        values = load(builder, offset(builder, address, index, 4), vector(F32, lanes))
        builder.store(term(builder, builder.load(sum_at), values, splat(builder, shift, lanes)), sum_at)

    def step(index: Value) -> None:
        for part, sum_at in enumerate(sums):
            add(sum_at, builder.add(builder.mul(index, constant(I64, STEP)), constant(I64, part * LANES)), LANES)

    steps = builder.udiv(n, constant(I64, STEP))
    repeat(builder, constant(I64, 0), steps, step)
    repeat(builder, builder.mul(steps, constant(I64, STEP)), n, lambda index: add(rest, index, 1))
    halves = [builder.fadd(builder.load(sums[i]), builder.load(sums[i + 2])) for i in range(2)]
    return builder.fadd(total(builder, builder.fadd(*halves)), total(builder, builder.load(rest)))


def _added(term: Term) -> Callable[..., Any]:
    """f(x, n, shift): the sum of `term` over the `n` float32 values at address `x`."""

    def typed(typing: Any, x: Any, n: Any, shift: Any) -> Any:
        def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            return _emit_added(term, builder, *arguments)

        return types.float32(types.int64, types.int64, types.float32), emit

    return intrinsic(typed)


def _plain(builder: Builder, so_far: Value, x: Value, shift: Value) -> Value:
    return builder.fadd(so_far, builder.fsub(x, shift))


def _squared(builder: Builder, so_far: Value, x: Value, shift: Value) -> Value:
    away = builder.fsub(x, shift)
    return multiply_add(builder, away, away, so_far)


sum_of, sum_of_squares = _added(_plain), _added(_squared)


@exact_inner
def _norm_token(address: int, token: int) -> None:
    call = call_at(address)
    width, x, out = call.width, call.x + token * call.x_stride, call.out + token * call.width * 4
    scale = np.float32(1.0) / np.sqrt(sum_of_squares(x, width, np.float32(0.0)) / np.float32(width) + np.float32(call.eps))
    values, weights, results = floats_at(x, width), floats_at(call.weight, width), floats_at(out, width)
    for i in range(width):
        results[i] = values[i] * scale * weights[i]


@exact_inner
def _layer_norm_token(address: int, token: int) -> None:
    """The mean is taken off before squares are added: their difference would lose what is small beside the mean."""
    call = call_at(address)
    width, x, out = call.width, call.x + token * call.x_stride, call.out + token * call.width * 4
    mean = sum_of(x, width, np.float32(0.0)) / np.float32(width)
    scale = np.float32(1.0) / np.sqrt(sum_of_squares(x, width, mean) / np.float32(width) + np.float32(call.eps))
    values, weights, results = floats_at(x, width), floats_at(call.weight, width), floats_at(out, width)
    biases = floats_at(call.bias, width)
    for i in range(width):
        results[i] = (values[i] - mean) * scale * weights[i] + biases[i]


@exact_kernel
def norm(address: int) -> None:
    """out[T, width] = x / sqrt(mean(x²) + eps) · weight, of the CALL at an address."""
    call = call_at(address)
    if call.tokens * call.width <= SERIAL_WEIGHTS:
        for token in range(call.tokens):
            _norm_token(address, token)
    else:
        in_parallel(_norm_token, address, call.tokens)


@exact_kernel
def layer_norm(address: int) -> None:
    """out[T, width] = (x - mean(x)) / sqrt(variance(x) + eps) · weight + bias, of the CALL at an address."""
    call = call_at(address)
    if call.tokens * call.width <= SERIAL_WEIGHTS:
        for token in range(call.tokens):
            _layer_norm_token(address, token)
    else:
        in_parallel(_layer_norm_token, address, call.tokens)
