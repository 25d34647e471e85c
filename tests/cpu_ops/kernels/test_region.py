"""A region's parts: each is computed once, whatever the threads; and none waits for a thread that is held up."""

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import pytest
from numba import types

from cpu_ops.kernels.compile import inner, intrinsic, kernel, loose
from cpu_ops.kernels.counter import is_last
from cpu_ops.kernels.ir import I64, Builder, Value, pointer
from cpu_ops.kernels.region import in_parallel, use_threads
from cpu_ops.kernels.rows import longs_at

THREADS = int(loose.config.NUMBA_NUM_THREADS)
PATIENCE = 10**9  # looks at a number before a part gives up waiting: a second or so
PARTS, SEEN, DONE = range(3)


@intrinsic
def _read(typing: Any, address: Any) -> Any:
    """int64 at an address, as other threads write it."""

    def emit(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        return builder.load_atomic(pointer(builder, arguments[0], I64), "acquire", 8)

    return types.int64(types.int64), emit


@inner
def _count(address: int, part: int) -> None:
    longs_at(address, part + 1)[part] += 1


@kernel
def _counted(address: int, parts: int, threads: int) -> None:
    use_threads(threads)
    in_parallel(_count, address, parts)


@inner
def _wait_for_the_others(address: int, part: int) -> None:
    numbers = longs_at(address, 3)
    if part > 0:
        is_last(address + 8 * DONE, numbers[PARTS])
        return
    for _ in range(PATIENCE):
        if _read(address + 8 * DONE) == numbers[PARTS] - 1:
            numbers[SEEN] = 1
            return


@kernel
def _held_up(address: int) -> None:
    use_threads(2)
    in_parallel(_wait_for_the_others, address, longs_at(address, 3)[PARTS])


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> Iterator[None]:
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)


@pytest.mark.parametrize("threads", range(1, THREADS + 1))
@pytest.mark.parametrize("parts", [0, 1, 2, 3, 24, 1000])
def test_every_part_is_computed_once(parts: int, threads: int) -> None:
    counts = np.zeros(parts + 1, np.int64)
    _counted(counts.ctypes.data, parts, threads)
    assert counts.tolist() == [1] * parts + [0]


@pytest.mark.skipif(THREADS < 2, reason="nobody else can take the parts of a thread that is held up: there is one thread")
def test_whoever_is_held_up_leaves_the_rest_to_the_others() -> None:
    """The first part waits until all others are done, also those that its own thread would have come to."""
    numbers = np.array([48, 0, 0])
    _held_up(numbers.ctypes.data)
    assert numbers[SEEN] == 1
