"""What a server costs that nobody asks: counted by the benchmark's own means, on the bundled model."""

import sys
import time

import pytest

from benchmarks.idle import SETTLE_SECONDS, busy, streamed_per_second, wakes
from benchmarks.process import serving
from models.paths import BUNDLED_NAME

SILENCE_SECONDS = 3
MOST_WAKES = 5  # of all threads together: a connection that times out, a collection of garbage


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads' sleeps in /proc")
def test_a_server_that_has_answered_sleeps() -> None:
    """No thread has a reason to wake, not even those of kernels that have just worked. One that polled, or waited awake for the next
    step, would show in one of the two counts."""
    with serving(BUNDLED_NAME) as (process, url):
        assert streamed_per_second(url) > 0
        time.sleep(SETTLE_SECONDS)
        before, busy_before = wakes(process.pid), busy(process)
        time.sleep(SILENCE_SECONDS)
        after, busy_after = wakes(process.pid), busy(process)
    woken = {thread: count - before.get(thread, 0) for thread, count in after.items()}
    assert sum(woken.values()) <= MOST_WAKES, woken
    assert busy_after - busy_before < 0.1 * SILENCE_SECONDS
