"""Tidying: some seconds after a request what requests have left is given back. Nothing happens while there are none."""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from server.memory import tidy

TIDY_SECONDS = 10.0


class Tidying:
    """Wraps the application of one server."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self._due = app, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            if not self._due:
                self._due = True
                asyncio.get_running_loop().call_later(TIDY_SECONDS, self._tidy)

    def _tidy(self) -> None:
        self._due = False
        asyncio.get_running_loop().run_in_executor(None, tidy)
