"""Serving until told to stop: uvicorn on a socket that is already open, and an orderly end."""

import logging
import signal
import socket
from types import FrameType

import uvicorn

from server.api.app import build_app
from server.service import Service

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(service: Service, taken: socket.socket, drain_seconds: int) -> None:
    """Returns after SIGTERM or Ctrl-C, when running requests are done or `drain_seconds` have passed."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # our own lines say what is needed
    settings = uvicorn.Config(
        build_app(service), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=drain_seconds
    )
    for number in STOP_SIGNALS:
        signal.signal(number, told)  # uvicorn acts on a signal, then gives it back to us: it has done its work
    uvicorn.Server(settings).run(sockets=[taken])


def told(number: int, frame: FrameType | None) -> None:
    """The signal has been acted on."""
