"""What was freed goes back to the system."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from server.memory import give_back


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc, whose pools this is about")
def test_what_a_thread_has_freed_does_not_stay_with_the_process() -> None:
    """150 MB in pieces of a kilobyte, as a tokenizer takes them, and one that is taken last and stays, so that the pool's end is in use."""
    process = psutil.Process()

    def work() -> bytes:
        pieces = [bytes(1000) for _ in range(150_000)]
        last = bytes(1000)
        taken = process.memory_info().rss
        del pieces
        return last + bytes(taken - before > 100e6)

    with ThreadPoolExecutor(1) as thread:
        before = process.memory_info().rss
        last = thread.submit(work).result()
        assert len(last) == 1001  # it was taken
        give_back()
        assert process.memory_info().rss - before < 30e6
