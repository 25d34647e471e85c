"""Who may come in: keys, origins, ids of requests, and bounds on headers, bodies and patience."""

import asyncio
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import openai
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.tokenizer import Tokenizer
from server.api import protocol
from server.api.app import Door, build_app
from server.api.bounds import USUAL, Bounds
from server.api.keys import Keys
from server.service import Service
from tests.server.api.asking import ask, checked
from tests.server.api.live import live_server
from tests.server.fakes import GatedModel, MemoryModel, running_service

KEY, OTHER = "sk-first-ä", "sk-second"
LOCKED = Door(keys=(KEY, OTHER), origins=("http://localhost:3000",))
PREFLIGHT = {"origin": "http://localhost:3000", "access-control-request-method": "POST", "access-control-request-headers": "authorization"}


@pytest.fixture(scope="module")
def service(tokenizer: Tokenizer) -> Iterator[Service]:
    with running_service(tokenizer, MemoryModel()) as service:
        yield service


@pytest.fixture(scope="module")
def locked(service: Service) -> ASGIApp:
    return build_app(service, LOCKED)


@pytest.mark.parametrize("path", "/v1/models /v1/completions /v1/chat/completions /metrics /props /docs /openapi.json /nothing".split())
@pytest.mark.parametrize(
    "headers",
    [{}, *({"authorization": said} for said in (f"Bearer {KEY}x", OTHER, "Bearer ", f"Basic {OTHER}")), {"x-api-key": "sk"}],
)
def test_without_a_right_key_there_is_nothing_to_see(locked: ASGIApp, path: str, headers: dict[str, str]) -> None:
    answer = ask(locked, "POST", path, headers={name: value.encode() for name, value in headers.items()})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert checked(answer)["type"] == "authentication_error"


@pytest.mark.parametrize("headers", [{"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {OTHER}"}, {"x-api-key": OTHER}])
def test_any_of_the_keys_opens(locked: ASGIApp, headers: dict[str, str]) -> None:
    assert ask(locked, "GET", "/v1/models", headers={name: value.encode() for name, value in headers.items()}).status_code == 200


def test_a_watchdog_needs_no_key(locked: ASGIApp) -> None:
    assert ask(locked, "GET", "/health").status_code == 200


def test_a_wrong_key_is_compared_with_every_key_by_digests_of_one_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """What constant time asks for: the same work whatever was right."""
    compared: list[tuple[int, int]] = []

    def noting(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return a == b

    keys = Keys(build_app, ("a", "b" * 90))  # type: ignore[arg-type]
    monkeypatch.setattr("server.api.keys.hmac.compare_digest", noting)
    assert [keys.knows(key) for key in (b"a", b"b" * 90, b"c", b"")] == [True, True, False, False]
    assert compared == [(32, 32)] * 8


def test_the_client_sends_its_key(service: Service) -> None:
    with live_server(service, LOCKED) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key=OTHER) as client:
            assert [model.id for model in client.models.list()] == ["fake"]
        with openai.OpenAI(base_url=f"{url}/v1", api_key="wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
            client.completions.create(model="fake", prompt="x")
    assert caught.value.code == "invalid_api_key"


def test_pages_of_an_origin_that_was_named_may_ask_and_no_others(locked: ASGIApp) -> None:
    allowed = ask(locked, "OPTIONS", "/v1/completions", headers=PREFLIGHT)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "access-control-allow-credentials" not in allowed.headers
    refused = ask(locked, "OPTIONS", "/v1/completions", headers=PREFLIGHT | {"origin": "http://evil.example"})
    assert "access-control-allow-origin" not in refused.headers
    answer = ask(locked, "GET", "/v1/models", headers={"origin": "http://localhost:3000"})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"


@pytest.mark.parametrize("changed", [{"origin": "http://evil.example"}, {"access-control-request-method": "DELETE"}])
def test_a_refused_preflight_has_our_shape(locked: ASGIApp, changed: dict[str, str]) -> None:
    answer = ask(locked, "OPTIONS", "/v1/completions", headers=PREFLIGHT | changed)
    assert answer.status_code == 400
    assert checked(answer)["code"] == "cors_refused"
    assert "--cors-origin" in checked(answer)["message"]
    assert ("access-control-allow-origin" in answer.headers) == ("origin" not in changed)


def test_a_named_origin_from_the_internet_may_ask_this_machine(locked: ASGIApp) -> None:
    """Chromium asks for that in so many words."""
    private = PREFLIGHT | {"access-control-request-private-network": "true"}
    allowed = ask(locked, "OPTIONS", "/v1/completions", headers=private)
    assert (allowed.status_code, allowed.headers["access-control-allow-private-network"]) == (200, "true")
    refused = ask(locked, "OPTIONS", "/v1/completions", headers=private | {"origin": "http://evil.example"})
    assert (refused.status_code, "access-control-allow-origin" in refused.headers) == (400, False)


def test_no_page_may_ask_unless_told(service: Service) -> None:
    for method, headers in (("OPTIONS", PREFLIGHT), ("GET", {"origin": "http://localhost:3000"})):
        answer = ask(build_app(service), method, "/v1/models", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_request_may_bring_its_own_id(service: Service) -> None:
    assert ask(build_app(service), "GET", "/health", headers={"x-request-id": "mine-7"}).headers["x-request-id"] == "mine-7"


@pytest.mark.parametrize("own", [b"", b"two words", b"x" * 129, b"\xe4"])
def test_an_id_that_would_spoil_a_log_is_replaced(service: Service, own: bytes) -> None:
    found = ask(build_app(service), "GET", "/health", headers={"x-request-id": own}).headers["x-request-id"]
    assert found.startswith("req_")


@pytest.mark.parametrize("path", ["/v1/models/a%0a2026-01-01%20forged", "/%1b%5b2J", "/%c3%a4", "/" + "x" * 5000])
def test_a_path_that_would_spoil_a_log_is_written_as_it_was_sent(service: Service, caplog: pytest.LogCaptureFixture, path: str) -> None:
    with caplog.at_level("INFO", logger="server.access"), live_server(service) as url:
        assert httpx.get(url + path, verify=False).status_code == 404
    (line,) = [record.getMessage() for record in caplog.records if record.name == "server.access"]
    assert line.isprintable()
    assert f"GET {path[:256]} 404" in line


def test_a_body_that_does_not_come_is_a_408(service: Service) -> None:
    async def slow() -> Any:
        yield b"{"
        await asyncio.sleep(60)

    answer = ask(build_app(service, Door(limits=replace(USUAL, body_seconds=0.05))), "POST", "/v1/completions", content=slow())
    assert answer.status_code == 408
    assert checked(answer)["code"] == "request_timeout"


def pieces(total_bytes: int) -> Any:
    """A body that says nothing of its length."""

    async def made() -> Any:
        for _ in range(total_bytes // 1000):
            yield b"x" * 1000

    return made()


@pytest.mark.parametrize("total_bytes", [11_000, 40_000, 400_000])
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_a_413_that_its_sender_reads(service: Service, total_bytes: int, announced: bool) -> None:
    small = build_app(service, Door(limits=replace(USUAL, body_bytes=10_000)))
    content = b"x" * total_bytes if announced else pieces(total_bytes)
    answer = ask(small, "POST", "/v1/completions", content=content)
    assert answer.status_code == 413
    assert checked(answer)["code"] == "body_too_large"


@pytest.mark.parametrize(("announced", "total", "read"), [(True, 9, 9), (False, 9, 9), (False, 4, 4), (True, 4, 4), (False, 100, 21)])
def test_the_end_of_a_body_that_is_too_large_is_waited_for_but_not_for_ever(announced: bool, total: int, read: int) -> None:
    """In parts of 1,000 bytes, of which five are allowed; it is forgotten as it comes."""
    reached, sizes = list[bytes](), list[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append((await receive())["body"])

    async def receive() -> Message:
        sizes.append(tracemalloc.get_traced_memory()[0])
        return {"type": "http.request", "body": b"x" * 1000, "more_body": len(sizes) < total}

    async def send(message: Message) -> None:
        pass

    headers = [(b"content-length", str(1000 * total).encode())] if announced else []
    tracemalloc.start()
    try:
        asyncio.run(Bounds(app, replace(USUAL, body_bytes=5_000))({"type": "http", "headers": headers}, receive, send))
    finally:
        tracemalloc.stop()
    assert reached == ([b"x" * 4000] if total == 4 else [])
    assert len(sizes) == read
    assert max(sizes) - sizes[0] < 15_000  # nowhere near the 100 kB that came


def sent(url: str, data: bytes) -> bytes:
    """What a server says to bare bytes, until it hangs up."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /health HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 33_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"hello\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
    ],
)
def test_what_is_no_http_is_a_400_in_our_shape(service: Service, data: bytes) -> None:
    with live_server(service) as url:
        head, _, body = sent(url, data).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert httpx.Response(400, content=body).json()["error"]["type"] == "invalid_request_error"
        assert b"\r\nx-request-id: req_" in head
        assert httpx.get(f"{url}/health", verify=False).status_code == 200


@pytest.mark.parametrize("door", [LOCKED, Door(hosts=("nobody",))])
def test_a_body_that_is_no_http_behind_a_request_that_is_refused_at_once(
    service: Service, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """One answer, whoever gives it, and no error of ours in the log."""
    data = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with live_server(service, door) as url:
        assert sent(url, data + b"nonsense\r\n").count(b"HTTP/1.1 4") == 1
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(data)
            assert connection.recv(65536).startswith(b"HTTP/1.1 40")
            connection.sendall(b"nonsense\r\n")
            while connection.recv(65536):
                pass
    assert not [record for record in caplog.records if record.exc_info]


def test_who_connects_and_says_nothing_is_hung_up_on(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.05)
    with live_server(service) as url:
        assert sent(url, b"GET /health HTT") == b""


def is_hung_up_on(connection: socket.socket, within_seconds: float) -> bool:
    """While it sends a byte now and then."""
    until = time.monotonic() + within_seconds
    try:
        while time.monotonic() < until:
            connection.sendall(b"x")
            time.sleep(0.02)
    except OSError:
        return True
    return False


def test_a_second_request_that_does_not_come_to_its_end_is_hung_up_on_too(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte by byte, after a first request that was answered."""
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.3)
    with live_server(service) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            assert is_hung_up_on(connection, within_seconds=5)


def test_an_answer_that_takes_longer_than_a_silence_may_is_given(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a connection that was used before; a request stops the clock."""
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.05)
    model = GatedModel()
    with (
        running_service(tokenizer, model) as service,
        live_server(service) as url,
        httpx.Client(base_url=url, verify=False, timeout=30) as client,
    ):
        for _ in range(2):
            threading.Timer(0.3, model.gate.release).start()
            assert client.post("/v1/completions", json={"prompt": "x", "max_tokens": 1}).status_code == 200


def test_the_server_does_not_say_what_it_is_made_of(service: Service) -> None:
    with live_server(service) as url:
        assert "server" not in httpx.get(f"{url}/health", verify=False).headers


def test_who_asks_for_another_protocol_is_answered_in_this_one(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    with live_server(service) as url:
        data = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n"
        assert sent(url, data).startswith(b"HTTP/1.1 200")
    assert "install" not in caplog.text


def test_an_answer_says_when_it_was_given(service: Service) -> None:
    """Also the second one on a connection, later."""
    with live_server(service) as url, httpx.Client(base_url=url, verify=False) as client:
        dates = []
        for _ in range(2):
            dates.append(parsedate_to_datetime(client.get("/health").headers["date"]).timestamp())
            assert abs(dates[-1] - time.time()) < 2
            time.sleep(1.01)
    assert dates[0] < dates[1]


def test_headers_over_the_limit_are_a_431(service: Service) -> None:
    answer = ask(build_app(service), "GET", "/v1/models", headers={"x": "y" * 33_000})
    assert answer.status_code == 431
    assert checked(answer)["code"] == "headers_too_large"
