"""Server-sent events, and noticing that a client has gone. Knows no tokens and no models."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.bridge import Job

SLOWEST_SECONDS = 30.0
DONE = "data: [DONE]\n\n"
LINE_BREAKS = {
    ord(mark): f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"
}  # to Unicode, not to SSE: readers that split texts break there
HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}


def event(data: dict[str, Any]) -> str:
    """One event on one line, whatever a reader takes for the end of a line."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"data: {text.translate(LINE_BREAKS)}\n\n"


def watch(receive: Receive, job: Job) -> asyncio.Task[None]:
    """Cancels `job` as soon as the client is gone. The caller cancels the task when there is nothing left to watch."""
    return asyncio.create_task(_cancel_when_gone(receive, job))


async def _cancel_when_gone(receive: Receive, job: Job) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    job.cancel()


class EventStream(Response):
    """Sends `chunks` as they come. However it ends, the job and its watcher end with it.

    A client that takes nothing for SLOWEST_SECONDS is given up: till then what it does not read is kept for it.
    """

    def __init__(self, chunks: AsyncIterator[str], job: Job, watcher: asyncio.Task[None]) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self.chunks, self.job, self.watcher = chunks, job, watcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(OSError):  # the client went away between two chunks, or reads no more (TimeoutError is one)
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                async for chunk in self.chunks:
                    async with asyncio.timeout(SLOWEST_SECONDS):
                        await send({"type": "http.response.body", "body": chunk.encode(), "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.watcher.cancel()
            self.job.cancel()
