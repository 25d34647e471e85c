"""What was freed goes back to the system."""

import ctypes
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from models.tokenizer import Tokenizer
from server.api import tidying
from server.memory import give_back, tidy
from tests.server.api.live import live_server
from tests.server.fakes import MemoryModel, running_service


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


def test_a_server_tidies_up_after_requests_and_never_when_there_were_none(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    tidied = threading.Semaphore(0)
    monkeypatch.setattr(tidying, "TIDY_SECONDS", 0.1)
    monkeypatch.setattr(tidying, "tidy", tidied.release)
    with running_service(tokenizer, MemoryModel()) as service, live_server(service) as url:
        assert not tidied.acquire(timeout=0.3)
        for _ in range(2):
            assert httpx.get(f"{url}/health", verify=False).status_code == 200
            assert tidied.acquire(timeout=10)
            assert not tidied.acquire(timeout=0.3)


def test_tidying_frees_what_lies_in_circles() -> None:
    class Circle:
        def __init__(self) -> None:
            self.own = self

    gone = weakref.ref(Circle())
    tidy()
    assert gone() is None
