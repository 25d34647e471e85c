"""While a model loads: every request is answered with a 503 that says so, on the socket that the server will have."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.envelope import Envelope
from server.api.errors import Loading, response_of
from server.api.protocol import Protocol
from server.api.sleeper import Sleeper


async def say_loading(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await response_of(Loading())(scope, receive, send)


@contextmanager
def answering_meanwhile(taken: socket.socket) -> Iterator[None]:
    """A thread answers until the block ends. `taken` stays open; connections that come later wait in its backlog."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # our own lines say what is needed
    app: ASGIApp = Envelope(say_loading)
    settings = uvicorn.Config(
        app, http=Protocol, ws="none", log_config=None, access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = Sleeper(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken.dup()]}, name="loading", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join()
