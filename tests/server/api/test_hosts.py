"""By which names the server is asked: a page whose name was pointed at this machine (DNS rebinding) gets nothing."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from models.tokenizer import Tokenizer
from server.api.app import Door, build_app
from server.api.hosts import names_to_answer
from server.service import Service
from tests.server.api.asking import ask, checked
from tests.server.api.live import live_server
from tests.server.fakes import MemoryModel, running_service

HOSTS = Door(hosts=names_to_answer("127.0.0.1", "127.0.0.1", ("My-PC.local",)))


@pytest.fixture(scope="module")
def service(tokenizer: Tokenizer) -> Iterator[Service]:
    with running_service(tokenizer, MemoryModel()) as service:
        yield service


@pytest.mark.parametrize(
    "host", "localhost localhost:8000 LOCALHOST. 127.0.0.1 127.0.0.1:65535 127.8.8.8 [::1] [::1]:8000 my-pc.local:1".split()
)
def test_this_machines_own_names_are_answered(service: Service, host: str) -> None:
    assert ask(build_app(service, HOSTS), "GET", "/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *"evil.example evil.example:8000 localhost.evil.example 127.0.0.1.evil.example 192.168.1.5 [::2] ::1 [localhost localhost:".split(),
        "localhost:8000:1",
        "localhost evil",
        "",
        "\xe4",
        "x" * 5000,
    ],
)
@pytest.mark.parametrize("path", ["/", "/health", "/v1/completions", "/map"])
def test_any_other_name_is_a_403_before_anything_else(service: Service, host: str, path: str) -> None:
    answer = ask(build_app(service, HOSTS), "POST", path, headers={"host": host.encode("latin-1")})
    assert answer.status_code == 403
    error = checked(answer)
    assert error["code"] == "host_not_allowed"
    assert "--allow-host" in error["message"]
    assert len(error["message"]) < 300


def test_a_second_host_does_not_hide_behind_the_first(service: Service) -> None:
    answer = ask(build_app(service, HOSTS), "GET", "/v1/models", headers=[("host", "localhost"), ("host", "evil.example")])
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("bound", "configured", "allowed", "answered"),
    [
        ("127.0.0.1", "127.0.0.1", (), ("127.0.0.1",)),
        ("127.0.1.1", "my-pc", (), ("my-pc",)),
        ("::1", "::1", ("a", "b"), ("::1", "a", "b")),
        ("127.0.0.1", "localhost", ("a", "*"), None),
        ("0.0.0.0", "0.0.0.0", (), None),
        ("192.168.1.5", "192.168.1.5", (), None),
        ("0.0.0.0", "0.0.0.0", ("my-pc",), ("0.0.0.0", "my-pc")),
    ],
)
def test_who_listens_to_this_machine_only_answers_to_its_names_only(
    bound: str, configured: str, allowed: tuple[str, ...], answered: tuple[str, ...] | None
) -> None:
    assert names_to_answer(bound, configured, allowed) == answered


def test_over_a_socket_with_and_without_a_name(service: Service) -> None:
    async def status_of(url: str, head: str) -> bytes:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET /health {head}\r\n\r\n".encode())
        answer = await reader.readline()
        writer.close()
        return answer.split()[1]

    with live_server(service, HOSTS) as url:
        assert httpx.get(f"{url}/health", verify=False).status_code == 200
        assert httpx.get(f"{url}/health", headers={"host": "evil.example"}, verify=False).status_code == 403
        assert asyncio.run(status_of(url, "HTTP/1.0")) == b"200"  # from before there were names; no browser asks so
        assert asyncio.run(status_of(url, "HTTP/1.1")) == b"400"
