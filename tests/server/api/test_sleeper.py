"""A server that nobody asks does not wake, and one that is told to stop does."""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from benchmarks.idle import wakes
from server.api.protocol import Protocol
from server.api.sleeper import Sleeper

SILENCE_SECONDS = 0.7  # seven ticks of uvicorn's own


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def server() -> Sleeper:
    return Sleeper(uvicorn.Config(PlainTextResponse("here"), http=Protocol, ws="none", log_config=None, lifespan="off"))


def started(server: Sleeper, taken: socket.socket) -> threading.Thread:
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    return thread


@pytest.mark.skipif(sys.platform != "linux", reason="counts a thread's sleeps in /proc")
def test_it_sleeps_until_it_is_asked_and_ends_when_it_is_told(server: Sleeper, taken: socket.socket) -> None:
    thread, url = started(server, taken), f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert httpx.get(url, verify=False).text == "here"
    time.sleep(0.1)
    before = own_wakes(thread)
    time.sleep(SILENCE_SECONDS)
    assert own_wakes(thread) - before <= 1
    assert httpx.get(url, verify=False).text == "here"
    server.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_told_before_it_begins_or_when_it_is_over_it_does_not_stay(server: Sleeper, taken: socket.socket) -> None:
    server.stop()
    thread = started(server, taken)
    thread.join(5)
    assert not thread.is_alive()
    server.stop()


def own_wakes(thread: threading.Thread) -> int:
    return next(count for name, count in wakes(os.getpid()).items() if name.endswith(f" {thread.native_id}"))
