"""A client that asks for a long stream and does not read it."""

import json
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest
import torch
from torch import Tensor

from models.step import Step
from models.tokenizer import Tokenizer
from server.api import protocol, sse
from tests.server.api.live import live_server
from tests.server.fakes import VOCAB, running_service

TOKENS = 30_000  # some 8 MB of events: more than the sockets between us hold


def always_a(step: Step) -> Tensor:
    logits = torch.zeros(len(step.wanted), VOCAB)
    logits[:, ord("a")] = 9.0
    return logits


def ask(url: str, max_tokens: int) -> socket.socket:
    """Sends a request for a stream, and reads nothing."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    connection = socket.create_connection((address.hostname, address.port))
    body = json.dumps({"prompt": "x", "max_tokens": max_tokens, "temperature": 0, "stream": True, "logprobs": 0}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_it_holds_nobody_up_and_is_given_up_in_the_end(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text is written to the end, its slot serves others, its place is free when it is given up."""
    monkeypatch.setattr(sse, "SLOWEST_SECONDS", 0.5)
    with (
        running_service(tokenizer, always_a, slots=1, context=TOKENS + 10) as service,
        live_server(service) as url,
        httpx.Client() as client,
    ):
        with ask(url, TOKENS):
            answer = client.post(f"{url}/v1/completions", json={"prompt": "y", "max_tokens": 3, "temperature": 0}, timeout=60)
            assert answer.json()["choices"][0]["text"] == "aaa"
            until = time.monotonic() + 20
            while service.bridge.unfinished and time.monotonic() < until:
                time.sleep(0.05)
            assert service.bridge.unfinished == 0
        assert service.bridge.numbers.slots_busy == 0


def ask_whole(url: str, characters: int) -> socket.socket:
    """Sends a text to be tokenised, and reads nothing of the answer, which is some thirty times as long."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    connection = socket.create_connection((address.hostname, address.port))
    body = json.dumps({"content": "x" * characters, "with_pieces": True}).encode()
    head = "POST /tokenize HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def read_to_the_end(connection: socket.socket, pause_seconds: float) -> int:
    """Bytes, until the server hangs up."""
    total, part = 0, b"x"
    try:
        while part:
            part = connection.recv(1 << 18)
            total += len(part)
            time.sleep(pause_seconds)
    except ConnectionError:
        pass
    return total


@pytest.mark.parametrize("reads", [False, True])
def test_a_finished_answer_is_kept_for_who_takes_some_of_it_now_and_then(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    """And not for who takes nothing: some 12 MB, more than the sockets between us hold."""
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 0.3)
    with running_service(tokenizer, always_a, slots=1) as service, live_server(service) as url, ask_whole(url, 600_000) as connection:
        head = connection.recv(1)  # the answer is made
        time.sleep(0 if reads else 2)
        total = len(head) + read_to_the_end(connection, 0.004)
    assert (total > 12_000_000) is reads


def test_one_that_reads_slowly_gets_everything(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SLOWEST_SECONDS", 2.0)
    with running_service(tokenizer, always_a, slots=1, context=TOKENS + 10) as service, live_server(service) as url:
        with ask(url, 3000) as connection:
            time.sleep(0.5)
            read = b""
            while not read.endswith(b"0\r\n\r\n"):
                read += connection.recv(50_000)
                time.sleep(0.005)
        assert read.count(b'"text":"a"') == 3000
        assert b"data: [DONE]" in read
