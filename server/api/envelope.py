"""Envelope: what happens to every request: a bound on its body, an id, and one line in the log, without any prompt."""

import logging
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import TooLarge, response_of

log = logging.getLogger("server.access")


class Envelope:
    """Wraps an application; its own answers have the id too, those for a failure included."""

    def __init__(self, app: ASGIApp, body_limit_bytes: int) -> None:
        self.app, self.limit = app, body_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id, started, status = f"req_{uuid.uuid4().hex}", time.perf_counter(), 0

        async def signed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._limited(scope, receive, signed)
        finally:
            spent_ms = 1e3 * (time.perf_counter() - started)
            level = logging.DEBUG if scope["path"] == "/health" and status == 200 else logging.INFO  # those come every few seconds
            log.log(level, "%s %s %s %d %.1f ms", request_id, scope["method"], scope["path"], status, spent_ms)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads the body up to the limit, then hands it on in one piece."""
        messages: list[Message] = []
        total_bytes = 0
        while not messages or messages[-1].get("more_body", False):
            messages.append(await receive())
            total_bytes += len(messages[-1].get("body", b""))
            if total_bytes > self.limit:
                return await response_of(TooLarge(self.limit))(scope, receive, send)
        if messages[-1]["type"] == "http.disconnect":
            return None
        body: Message = {"type": "http.request", "body": b"".join(message["body"] for message in messages), "more_body": False}
        await self.app(scope, replay(body, receive), send)


def replay(first: Message, receive: Receive) -> Receive:
    """Gives `first`, then whatever `receive` gives."""
    kept = [first]

    async def replayed() -> Message:
        return kept.pop() if kept else await receive()

    return replayed
