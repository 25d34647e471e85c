"""A live HTTP server in a thread, on a port the system chooses."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from server.api.app import OPEN, Door
from server.api.serve import Draining, settings
from server.service import Service


@contextmanager
def live_server(service: Service, door: Door = OPEN, taken: socket.socket | None = None, drain_seconds: float = 5) -> Iterator[str]:
    """Yields its address, http://127.0.0.1:PORT. `taken`: a socket that listens already."""
    listening = taken or socket.create_server(("127.0.0.1", 0))
    server = Draining(settings(service, door, drain_seconds), service, drain_seconds)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.stop()
        thread.join(10)
        listening.close()
        assert not thread.is_alive()
