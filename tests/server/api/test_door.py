"""Who may come in: keys, origins, ids of requests, and bounds on headers, bodies and patience."""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from starlette.types import ASGIApp

from models.tokenizer import Tokenizer
from server.api import protocol
from server.api.app import Door, build_app
from server.api.bounds import USUAL
from server.api.keys import Keys
from server.service import Service
from tests.server.api.asking import ask, checked
from tests.server.api.live import live_server
from tests.server.fakes import MemoryModel, running_service

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


def test_a_body_that_does_not_come_is_a_408(service: Service) -> None:
    async def slow() -> Any:
        yield b"{"
        await asyncio.sleep(60)

    answer = ask(build_app(service, Door(limits=replace(USUAL, body_seconds=0.05))), "POST", "/v1/completions", content=slow())
    assert answer.status_code == 408
    assert checked(answer)["code"] == "request_timeout"


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
        assert httpx.get(f"{url}/health", verify=False).status_code == 200


def test_who_connects_and_says_nothing_is_hung_up_on(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.05)
    with live_server(service) as url:
        assert sent(url, b"GET /health HTT") == b""


def test_the_server_does_not_say_what_it_is_made_of(service: Service) -> None:
    with live_server(service) as url:
        assert "server" not in httpx.get(f"{url}/health", verify=False).headers


def test_headers_over_the_limit_are_a_431(service: Service) -> None:
    answer = ask(build_app(service), "GET", "/v1/models", headers={"x": "y" * 33_000})
    assert answer.status_code == 431
    assert checked(answer)["code"] == "headers_too_large"
