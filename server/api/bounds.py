"""Bounds: on the bytes of a request's headers and body, and on how long the body may take to come."""

import asyncio
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import TooLarge, TooManyHeaders, TooSlow, response_of


@dataclass(frozen=True, slots=True)
class Limits:
    header_bytes: int
    body_bytes: int
    body_seconds: float


PATIENCE = 4  # times the limit: what is read and forgotten of a body that is too large
USUAL = Limits(header_bytes=32 << 10, body_bytes=8 << 20, body_seconds=60.0)


class Bounds:
    """Reads a body up to the limit, then hands it on in one piece. A client that leaves meanwhile is answered nothing.

    What is larger is forgotten as it comes, but not cut off at once: a client that cannot send its body to the end often reads no answer.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self.limits.header_bytes:
            return await response_of(TooManyHeaders(self.limits.header_bytes))(scope, receive, send)
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                body = await self._read(receive, announced_bytes(scope))
        except TimeoutError:
            return await response_of(TooSlow(self.limits.body_seconds))(scope, receive, send)
        except TooLarge as error:
            return await response_of(error)(scope, receive, send)
        if body is not None:
            await self.app(scope, replay({"type": "http.request", "body": body, "more_body": False}, receive), send)

    async def _read(self, receive: Receive, announced_bytes: int) -> bytes | None:
        """None when the client has gone. TooLarge after the body's end, or PATIENCE times the limit."""
        body, limit, total_bytes, more = bytearray(), self.limits.body_bytes, 0, True
        while more and total_bytes <= PATIENCE * limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part, more = message.get("body", b""), message.get("more_body", False)
            total_bytes += len(part)
            if max(total_bytes, announced_bytes) <= limit:
                body += part
            else:
                body.clear()
        if max(total_bytes, announced_bytes) > limit:
            raise TooLarge(limit)
        return bytes(body)


def announced_bytes(scope: Scope) -> int:
    """Of the body, by its header; 0 when it has none."""
    announced = dict(scope["headers"]).get(b"content-length", b"")
    return int(announced[:20]) if announced.isdigit() else 0


def replay(first: Message, receive: Receive) -> Receive:
    """Gives `first`, then whatever `receive` gives."""
    kept = [first]

    async def replayed() -> Message:
        return kept.pop() if kept else await receive()

    return replayed
