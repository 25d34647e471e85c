"""Wire: one HTTP request over a connection of its own, byte by byte, so that it can be wrong, slow or cut off. Knows no API."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

END = b"\r\n\r\n"
MOST_HEAD_BYTES = 1 << 16


class Gone(Exception):
    """The server closed the connection without an answer, or said what is none."""


@dataclass(slots=True)
class Wire:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    headers: dict[str, str] | None = None

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> int:
        """Reads status and headers; Gone when none come."""
        try:
            lines = (await self.reader.readuntil(END)).decode("latin-1").split("\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            raise Gone from None
        self.status = int(lines[0].split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
        return self.status

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes; Gone when it is cut off."""
        assert self.headers is not None
        try:
            if "content-length" in self.headers:
                yield await self.reader.readexactly(int(self.headers["content-length"]))
                return
            while size := int(await self.reader.readline() or b"-1", 16):
                yield (await self.reader.readexactly(size + 2))[:-2]
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            raise Gone from None

    async def body(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])

    async def events(self) -> AsyncIterator[Any]:
        """The objects of a stream of events, and its None at [DONE]."""
        rest = b""
        async for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n\n")
            for event in whole:
                data = event.removeprefix(b"data: ")
                yield None if data == b"[DONE]" else json.loads(data)

    def cut(self) -> None:
        """Without a word."""
        self.writer.transport.abort()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Wire]:
    """A connection to the server at `url`, closed at the end."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=MOST_HEAD_BYTES)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def post(path: str, body: bytes, *, kind: str = "application/json") -> bytes:
    """The bytes of a POST request, after which the server closes the connection."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
