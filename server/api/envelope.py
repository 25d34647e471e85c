"""Envelope: what happens to every request: an id, and one line in the log, without any prompt."""

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import response_of
from server.bridge import Closed
from server.logs import REQUEST_ID

log = logging.getLogger("server.access")
WATCHED = ("/health", "/metrics")  # every few seconds, for months
LONGEST_PATH = 256  # characters of it in the log
OWN_ID = re.compile(rb"[\x21-\x7e]{1,128}")  # of a client: what is safe to write into a log and a header


class Envelope:
    """Wraps an application; its own answers have the id too, those for a failure included. A client may name its request itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id, started, status = id_of(scope), time.perf_counter(), 0
        token = REQUEST_ID.set(request_id)

        async def signed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, signed)
        except asyncio.CancelledError:  # by uvicorn, when the server stops and waits no longer
            if not status:
                await response_of(Closed())(scope, receive, signed)
        finally:
            spent_ms = round(1e3 * (time.perf_counter() - started), 1)
            level = logging.DEBUG if scope["path"] in WATCHED and status == 200 else logging.INFO
            facts = {"method": scope["method"], "path": path_of(scope), "status": status, "ms": spent_ms}
            log.log(level, "%s %s %d %.1f ms", *facts.values(), extra={"facts": facts})
            REQUEST_ID.reset(token)


def id_of(scope: Scope) -> str:
    """The client's own `x-request-id`, else a new one."""
    own = dict(scope["headers"]).get(b"x-request-id", b"")
    return own.decode() if OWN_ID.fullmatch(own) else new_id()


def new_id() -> str:
    return f"req_{uuid.uuid4().hex}"


def path_of(scope: Scope) -> str:
    """As it was sent, so that it has no line break or other character that would spoil a log; the beginning of a long one."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
    return raw[:LONGEST_PATH].decode("ascii", "backslashreplace")
