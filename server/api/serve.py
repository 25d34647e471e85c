"""Serving until told to stop: uvicorn on a socket that is already open, and an orderly end."""

import logging
import signal
import socket
from types import FrameType

import uvicorn

from server.api.app import Door, build_app
from server.api.protocol import Protocol
from server.api.sleeper import Sleeper
from server.api.tidying import Tidying
from server.service import Service

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def settings(service: Service, door: Door, drain_seconds: int) -> uvicorn.Config:
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
        timeout_graceful_shutdown=drain_seconds,
    )


def serve(service: Service, taken: socket.socket, door: Door, drain_seconds: int) -> None:
    """Returns after SIGTERM or Ctrl-C, when running requests are done or `drain_seconds` have passed."""
    for number in STOP_SIGNALS:
        signal.signal(number, told)  # uvicorn acts on a signal, then gives it back to us: it has done its work
    Draining(settings(service, door, drain_seconds), service).run(sockets=[taken])


class Draining(Sleeper):
    """Before it waits for running requests, it ends those that would run for ever."""

    def __init__(self, settings: uvicorn.Config, service: Service) -> None:
        super().__init__(settings)
        self.service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.watch.close()
        await super().shutdown(sockets)


def told(number: int, frame: FrameType | None) -> None:
    """The signal has been acted on."""
