"""uvicorn without its clock: it looks ten times a second whether it is to stop, and renews the date it answers with. This one sleeps."""

import asyncio
import socket
from contextlib import suppress
from types import FrameType

import uvicorn


class Sleeper(uvicorn.Server):
    """Wakes for requests, and to stop. The date is `Protocol`'s."""

    def __init__(self, settings: uvicorn.Config) -> None:
        super().__init__(settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    async def main_loop(self) -> None:
        if not self.should_exit:  # told while it started
            await self._told.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._wake()

    def stop(self) -> None:
        """From any thread, at any time."""
        self.should_exit = True
        self._wake()

    def _wake(self) -> None:
        if self._loop is not None:  # else it has not begun, and finds `should_exit` when it does
            with suppress(RuntimeError):  # it is over
                self._loop.call_soon_threadsafe(self._told.set)
