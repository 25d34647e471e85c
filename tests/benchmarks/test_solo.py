"""When a text may differ from the one that was written alone, and what the clients of `benchmarks.abuse` hold against a server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from benchmarks import abuse
from benchmarks.abuse import Client, Found
from benchmarks.hostile import ODD, mistyped
from benchmarks.solo import MARGIN, Solo, gap, solo
from benchmarks.wire import Gone, connected, post

SURE, UNSURE = 10 * MARGIN, MARGIN / 10
ALONE = Solo({"prompt": "x"}, "one two three", (0, 3, 7), (SURE, UNSURE, SURE))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("one two three", "equal"),
        ("one tall tree", "near"),  # parts in the second token
        ("one", "near"),  # and so does a text that ends before it
        ("on", "different"),
        ("other", "different"),
        ("", "different"),
        ("one two thread and more", "near"),  # 'three' may have been parted from the token before it by where tokens are cut
    ],
)
def test_a_text_may_part_only_where_the_choice_was_close(text: str, verdict: str) -> None:
    assert ALONE.judge(text) == verdict


def test_a_margin_is_between_the_two_likeliest() -> None:
    assert gap({"a": -1.0, "b": -1.5, "c": -9.0}) == 0.5
    assert gap({"a": -1.0}) == 0.0


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def against(handler: Handler, story: Callable[[str], Awaitable[None]]) -> None:
    """`story` with the address of a server that answers everything by `handler`."""

    async def whole() -> None:
        async with await asyncio.start_server(handler, "127.0.0.1", 0) as server:
            await asyncio.wait_for(story(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), 20)

    asyncio.run(whole())


def answering(answer: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return handler


def plain(status: int, body: object) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%s" % (status, len(data), data)


def streamed(*texts: str, end: bytes = b"data: [DONE]\n\n") -> bytes:
    """Chunks that cut events where they like."""
    last = len(texts) - 1
    frames = [{"choices": [{"text": text, "finish_reason": "length" if i == last else None}]} for i, text in enumerate(texts)]
    data = b"".join(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames) + end
    chunks = [data[i : i + 11] for i in range(0, len(data), 11)] + [b""]
    return b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def complaints(answer: bytes, act: abuse.Act) -> list[str]:
    found = Found()

    async def story(url: str) -> None:
        client = Client(url, [ALONE], found, Random(0))
        try:
            await act(client)
        except Gone:
            found.complain("gone")

    against(answering(answer), story)
    return found.wrong


@pytest.mark.parametrize(
    ("answer", "act", "wrong"),
    [
        (streamed("one ", "two three"), abuse.stream, 0),
        (streamed("one ", "two three"), abuse.slow, 0),
        (streamed("one ", "too three"), abuse.stream, 0),
        (streamed("other"), abuse.stream, 1),
        (streamed("one two three", end=b""), abuse.stream, 1),
        (streamed("one two three")[:-30], abuse.stream, 1),
        (streamed("one", end=b'data: {"error": {}}\n\n'), abuse.stream, 1),
        (plain(200, {"choices": [{"text": "one two three"}] * 2}), abuse.whole, 0),
        (plain(200, {"choices": [{"text": "one two three"}, {"text": "other"}]}), abuse.whole, 1),
        (plain(503, {}), abuse.whole, 0),
        (plain(400, {}), abuse.whole, 1),
        (plain(500, {}), abuse.odd, 1),
        (plain(413, {}), abuse.odd, 0),
        (b"", abuse.odd, 0),
        (b"", abuse.stream, 1),
    ],
)
def test_a_client_complains_of_what_must_not_be_and_of_nothing_else(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, act: abuse.Act, wrong: int
) -> None:
    monkeypatch.setattr(abuse, "ODD", (mistyped,))
    assert len(complaints(answer, act)) == wrong


def test_alone_a_text_comes_with_its_margins() -> None:
    logprobs = {"text_offset": [0, 3], "top_logprobs": [{"a": -1.0, "b": -2.0}, {"c": -0.5}]}
    answer = plain(200, {"choices": [{"text": "a c", "logprobs": logprobs}]})

    async def story(url: str) -> None:
        assert await solo(url, "/v1/completions", {"prompt": "x"}) == Solo({"prompt": "x"}, "a c", (0, 3), (1.0, 0.0))

    against(answering(answer), story)

    async def refused(url: str) -> None:
        assert await solo(url, "/v1/completions", {"prompt": "x"}) is None

    against(answering(plain(400, {})), refused)


def test_every_odd_thing_can_be_made_and_sent() -> None:
    random = Random(1)
    for make in ODD:
        for _ in range(50):
            assert isinstance(make(random), bytes)
    assert post("/x", b"{}").endswith(b"content-length: 2\r\n\r\n{}")


def test_a_wire_tells_of_a_server_that_hangs_up() -> None:
    async def story(url: str) -> None:
        async with connected(url) as wire:
            await wire.send(post("/x", b""))
            with pytest.raises(Gone):
                await wire.head()

    against(answering(b""), story)
