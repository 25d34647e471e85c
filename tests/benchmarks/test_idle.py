"""What a server costs that nobody asks: counted by the benchmark's own means, on the bundled model."""

import sys
import time

import pytest

from benchmarks.idle import SETTLE_SECONDS, busy, streamed_per_second, wakes
from benchmarks.process import serving
from models.paths import BUNDLED_NAME

SILENCE_SECONDS = 3
TICKS = 10  # a second: uvicorn looks whether it is to stop; nothing else has a reason to wake


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads' sleeps in /proc")
def test_a_server_that_has_answered_sleeps() -> None:
    """Its threads wake no oftener than the event loop's own tick, even those of kernels that have just worked. A thread that
    polled, or waited awake for the next step, would show in one of the two counts."""
    with serving(BUNDLED_NAME) as (process, url):
        assert streamed_per_second(url) > 0
        time.sleep(SETTLE_SECONDS)
        before, busy_before = wakes(process.pid), busy(process)
        time.sleep(SILENCE_SECONDS)
        after, busy_after = wakes(process.pid), busy(process)
    woken = {thread: count - before.get(thread, 0) for thread, count in after.items()}
    assert sum(woken.values()) <= SILENCE_SECONDS * TICKS * 1.5 + 5, woken
    assert busy_after - busy_before < 0.1 * SILENCE_SECONDS
