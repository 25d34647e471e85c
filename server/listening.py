"""The port, taken before anything slow begins. Knows no HTTP."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import Unavailable

REASONS = {
    errno.EADDRINUSE: "the port is in use; stop the other program, or choose another with --port",
    errno.EACCES: "no right to use this port; choose one above 1023 with --port",
    errno.EADDRNOTAVAIL: "this machine does not have that address; choose another with --host",
}


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket; Unavailable says why not. Connections that come before anyone accepts wait in its backlog."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Unavailable(f"{host}:{port}", error.strerror or str(error)) from None
    with taken:
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(address)
            taken.listen()
        except OSError as error:
            raise Unavailable(f"{host}:{port}", REASONS.get(error.errno or 0, os.strerror(error.errno or 0))) from None
        yield taken


def url_of(taken: socket.socket) -> str:
    """http://127.0.0.1:8000, with brackets around an IPv6 address; for "every address of this machine", one that can be asked."""
    host, port = taken.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
