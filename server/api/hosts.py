"""Hosts: by which names this server is asked. A page whose own name was pointed at 127.0.0.1 (DNS rebinding) asks by that name."""

import ipaddress
import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.errors import UnknownHost, response_of

ANY = "*"
WRITTEN = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(?::\d{1,5})?")  # as in the header: a name or an address, and perhaps a port


class Hosts:
    """Lets requests through that ask for this machine by a loopback address, as `localhost`, or by one of `names`."""

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self.app = app
        self.names = {"localhost", *(plain(name) for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        if scope["type"] != "http" or all(self.knows(host) for host in asked):  # HTTP/1.0 may name none; browsers always do
            return await self.app(scope, receive, send)
        await response_of(UnknownHost(asked[0]))(scope, receive, send)

    def knows(self, host: str) -> bool:
        written = WRITTEN.fullmatch(host.strip().lower())
        return written is not None and (plain(written[1]) in self.names or is_loopback(written[1]))


def plain(host: str) -> str:
    """Without brackets and the dot that a full name may end with, in small letters."""
    return host.strip().lower().strip("[]").removesuffix(".")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(plain(host)).is_loopback
    except ValueError:
        return False


def names_to_answer(bound: str, configured: str, allowed: tuple[str, ...]) -> tuple[str, ...] | None:
    """None: every name, where others may come in and no names were given, or where `*` was. `bound`: the address that is listened on."""
    if ANY in allowed or not (allowed or is_loopback(bound)):
        return None
    return (configured, *allowed)
