"""What a connection leaves behind when it is over: nothing."""

import asyncio
import gc
import socket
import threading
import time
import weakref

import httpx
import uvicorn
from starlette.responses import PlainTextResponse

from server.api.protocol import Protocol
from server.api.sleeper import Sleeper

PATIENCE_SECONDS = 5.0  # far less than a silent connection's HEADER_SECONDS


def test_a_connection_that_is_over_is_forgotten_with_its_request() -> None:
    connections = list[weakref.ref[Protocol]]()

    class Noted(Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            connections.append(weakref.ref(self))
            super().connection_made(transport)

    server = Sleeper(uvicorn.Config(PlainTextResponse("here"), http=Noted, ws="none", log_config=None, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        for _ in range(5):
            assert httpx.get(f"http://127.0.0.1:{listening.getsockname()[1]}").text == "here"
        until = time.monotonic() + PATIENCE_SECONDS
        while any(connection() is not None for connection in connections) and time.monotonic() < until:
            time.sleep(0.05)
            gc.collect()
        alive = [connection for connection in connections if connection() is not None]
        server.stop()
        thread.join(5)
    assert len(connections) == 5
    assert not alive
