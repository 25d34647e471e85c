"""Serving until told to stop: uvicorn on a socket that is already open, and an orderly end."""

import asyncio
import logging
import signal
import socket
from math import ceil
from types import FrameType

import uvicorn

from server.api.app import Door, build_app
from server.api.protocol import Protocol
from server.api.sleeper import Sleeper
from server.api.tidying import Tidying
from server.service import Service

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
LAST_WORDS_SECONDS = 2  # after the drain: to say so to whoever is not finished; who does not read it is cut off


def settings(service: Service, door: Door, drain_seconds: float) -> uvicorn.Config:
    """Our own lines say what is needed, so uvicorn's are off."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return uvicorn.Config(
        Tidying(build_app(service, door)),
        http=Protocol,
        ws="none",
        h11_max_incomplete_event_size=door.limits.header_bytes,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=ceil(drain_seconds + LAST_WORDS_SECONDS),
    )


def serve(service: Service, taken: socket.socket, door: Door, drain_seconds: int) -> None:
    """Returns after SIGTERM or Ctrl-C, when running requests are done or `drain_seconds` have passed."""
    for number in STOP_SIGNALS:
        signal.signal(number, told)  # uvicorn acts on a signal, then gives it back to us: it has done its work
    Draining(settings(service, door, drain_seconds), service, drain_seconds).run(sockets=[taken])


class Draining(Sleeper):
    """Before it waits for running requests, it ends those that would run for ever; after `drain_seconds`, all that still run."""

    def __init__(self, settings: uvicorn.Config, service: Service, drain_seconds: float) -> None:
        super().__init__(settings)
        self.service, self.drain_seconds = service, drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.watch.close()
        over = asyncio.get_running_loop().call_later(self.drain_seconds, self.service.bridge.close)
        await super().shutdown(sockets)
        over.cancel()


def told(number: int, frame: FrameType | None) -> None:
    """The signal has been acted on."""
