"""A bank and a call of it, as kernels see them, and which neurons each of its parts has. Knows no arithmetic.

Neurons are dealt in runs to parts, whatever the threads and the tokens: so a token's bits depend on the bank alone.
"""

from typing import Any

import numpy as np

from cpu_ops.kernels.compile import inner
from cpu_ops.kernels.rows import INPUT, ROWS, block_at, longs_at

PARTS = 24  # at most: 2, 3, 4, 6, 8 and 12 threads get equal shares, and merging costs 2 % of a 7B layer's bytes
RUN = 64  # neurons dealt at once, at most: hot neurons come first, so longer runs would give one thread all the work
LEAST = 64  # neurons of a part
STRIDE = 41  # prime: neighbouring runs, as hot as each other, go to distant parts, which other threads have

# A bank and its rule, described once. `first` decides whether a neuron fires: gate, or up when there is no gate (then `second`
# is not read). Biases are addresses of float32 [n], or 0. `outward` are the predictor's rows, its n 0 where there is none.
BANK = np.dtype(
    [("first", ROWS), ("second", ROWS), ("down", ROWS), ("outward", ROWS)]
    + [(name, np.int64) for name in ("first_bias", "second_bias", "n", "run", "kind", "activation")]
    + [("threshold", np.float64), ("predicted_from", np.float64)]
)
# One call: the bank's block; x and what the predictor multiplies with, and where both are laid out for `products`; raw sums float32
# [parts, tokens, raw]; out float32 [tokens, k].
CALL = np.dtype(
    [("bank", np.int64), ("x", INPUT), ("inside", INPUT)]
    + [(name, np.int64) for name in ("prepared", "prepared_stride", "inside_prepared", "inside_stride")]
    + [(name, np.int64) for name in ("tokens", "parts", "sums", "out", "threads")]
)
bank_at, call_at = block_at(BANK), block_at(CALL)


def parts_of(neurons: int) -> int:
    """How many parts a bank is dealt to."""
    return max(1, min(PARTS, neurons // LEAST))


def run_of(neurons: int) -> int:
    """How many neurons are dealt at once, so that every part gets as many runs."""
    parts = parts_of(neurons)
    return -(-neurons // (parts * -(-neurons // (parts * RUN))))


@inner
def most_of_part(bank: Any, call: Any) -> Any:
    """Neurons that a part is dealt, at most."""
    return _runs(bank, call) * bank.run


@inner
def deal(bank: Any, call: Any, part: int, chosen: int) -> int:
    """Writes the part's neurons to the int64 at an address; says how many. Every other round is dealt backwards: hot neurons come first."""
    own, count = longs_at(chosen, most_of_part(bank, call)), 0
    for number in range(_runs(bank, call)):
        place = part * STRIDE % call.parts
        if number % 2 == 1:
            place = call.parts - 1 - place
        first = min((number * call.parts + place) * bank.run, bank.n)
        for i in range(first, min(first + bank.run, bank.n)):
            own[count] = i
            count += 1
    return count


@inner
def _runs(bank: Any, call: Any) -> Any:
    """How many runs a part is dealt."""
    return (bank.n + bank.run * call.parts - 1) // (bank.run * call.parts)
