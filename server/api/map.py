"""GET /map: the live map of the model, as server-sent events: its layout once, then which neurons fire in some of the steps.

An event of a client that reads too slowly is dropped, and never waited for.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.api.documents import MAP
from server.api.sse import HEADERS, SLOWEST_SECONDS, event
from server.service import Service
from server.watching import Firing, Layout, Watch

router = APIRouter()
KEEP_ALIVE_SECONDS = 15.0
KEEP_ALIVE = ": nothing fires\n\n"
WAITING_EVENTS = 2


@router.get("/map", response_class=Response, responses={200: MAP})
async def live_map(request: Request) -> Response:
    """A `layout` event, then a `firing` event for each watched step, until the client goes or the server stops."""
    service: Service = request.app.state.service
    return MapStream(service.watch)


def layout_event(layout: Layout) -> str:
    """`edges`: which neurons of a bank's order, hottest first, each column holds; `hot`: how many of them the GPU serves, by bank."""
    shape = {"layers": layout.n_layers, "experts": layout.n_experts, "neurons": layout.n_neurons}
    return event({"type": "layout", **shape, "edges": layout.edges, "hot": layout.hot})


def firing_event(firing: Firing) -> str:
    """`cells`: a byte for each bank and column, bank by bank, in base64; 255 where every neuron fired for every token."""
    cells = base64.b64encode(firing.cells.tobytes()).decode()
    counts: dict[str, Any] = {"tokens": firing.tokens, "fired_gpu": firing.fired_hot, "fired_cpu": firing.fired_cold}
    return event({"type": "firing", **counts, "cells": cells})


class MapStream(Response):
    """Subscribes for as long as the client stays."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self.watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Firing | None](WAITING_EVENTS)
        listener = partial(post, loop, arrived)
        self.watch.subscribe(listener)
        gone = asyncio.create_task(until_gone(receive))
        try:
            with suppress(OSError):  # the client went away between two events, or reads no more (TimeoutError is one)
                await self._send(send, arrived, gone)
        finally:
            gone.cancel()
            self.watch.unsubscribe(listener)

    async def _send(self, send: Send, arrived: asyncio.Queue[Firing | None], gone: asyncio.Task[None]) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send(body(layout_event(self.watch.layout)))
        async for chunk in chunks(arrived, gone):
            async with asyncio.timeout(SLOWEST_SECONDS):
                await send(body(chunk))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def chunks(arrived: asyncio.Queue[Firing | None], gone: asyncio.Task[None]) -> AsyncIterator[str]:
    """Events as they come, and a comment when none has come for a while, until `gone` is done or the end has come."""
    while True:
        coming = asyncio.ensure_future(arrived.get())
        await asyncio.wait({coming, gone}, timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            coming.cancel()
            return
        if not coming.done():
            coming.cancel()
            yield KEEP_ALIVE
        elif (firing := coming.result()) is None:
            return
        else:
            yield firing_event(firing)


def body(text: str) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text.encode(), "more_body": True}


async def until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def post(loop: asyncio.AbstractEventLoop, arrived: asyncio.Queue[Firing | None], firing: Firing | None) -> None:
    """On the engine's thread."""
    with suppress(RuntimeError):  # the loop is closed: nobody is listening
        loop.call_soon_threadsafe(put, arrived, firing)


def put(arrived: asyncio.Queue[Firing | None], firing: Firing | None) -> None:
    """Drops what finds no room, but the end always does."""
    if firing is None and arrived.full():
        arrived.get_nowait()
    with suppress(asyncio.QueueFull):
        arrived.put_nowait(firing)
