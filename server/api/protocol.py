"""What uvicorn says by itself, in our shape; the date of all answers; bounds on what comes before a request: headers, and the wait."""

import asyncio
import json
from email.utils import formatdate

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.api.bounds import USUAL
from server.api.envelope import new_id
from server.api.errors import error_body

HEADER_SECONDS = 30
UNREAD_SECONDS = 30


class Protocol(H11Protocol):
    """HTTP/1.1. A connection on which no whole request has come within HEADER_SECONDS, the first or a later one, is closed.

    So is one that has taken nothing of a finished answer for UNREAD_SECONDS: till then the answer is kept for it.
    """

    _silence: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._time_silence()

    def connection_lost(self, exc: Exception | None) -> None:
        """The clock stops: it would keep the connection, its last request and all that hangs on it for HEADER_SECONDS more."""
        self._forget_silence()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """An answer is dated when its request came: there is no clock that would do it (`Sleeper`)."""
        self.server_state.default_headers = [(b"date", formatdate(usegmt=True).encode()), *self.config.encoded_headers]
        super().data_received(data)
        self._time_silence()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._unread is None:
            self._time_reading(self.transport.get_write_buffer_size() + 1)

    def _time_reading(self, before_bytes: int) -> None:
        """Gives up a client that has read nothing since there were `before_bytes` to read."""
        left_bytes, self._unread = self.transport.get_write_buffer_size(), None
        if left_bytes >= before_bytes:
            self.transport.abort()
        elif left_bytes:
            self._unread = self.loop.call_later(UNREAD_SECONDS, self._time_reading, left_bytes)

    def _unsupported_upgrade_warning(self) -> None:
        """uvicorn's own words tell the user to install something; the request is answered as if it had asked for no upgrade."""

    def _time_silence(self) -> None:
        """The clock runs from the first byte after an answer; more bytes do not set it back, only a request stops it."""
        if self._answers:
            self._forget_silence()
        elif self._silence is None:
            self._silence = self.loop.call_later(HEADER_SECONDS, self._close_if_silent)

    def _forget_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    @property
    def _answers(self) -> bool:
        """Whether there is a request that is not answered to its end."""
        return self.cycle is not None and not self.cycle.response_complete

    def _close_if_silent(self) -> None:
        if not self._answers:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """For what is no HTTP, or has more headers than the limit; and for a body that is none, whose request may be answered already."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # whoever works on it says nothing more
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return self.transport.close()
        message = f"this is not an HTTP request, or its headers are larger than {USUAL.header_bytes} bytes"
        body = json.dumps(error_body(message, "invalid_request_error", None, "bad_http")).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        headers += [(b"x-request-id", new_id().encode())]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
