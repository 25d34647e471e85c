"""Requests that no client should send: each must end in a 4xx or a closed connection, whatever a lenient reader may still make of a few."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

from benchmarks.wire import post

PATH = "/v1/completions"
OVERSIZED_BYTES = 9 << 20  # the server's limit is 8 MiB
DEEP = 100_000

Odd = Callable[[Random], bytes]


def body(**fields: Any) -> bytes:
    return json.dumps({"prompt": "x", "max_tokens": 1} | fields).encode()


def number(field: str, text: str) -> bytes:
    """A number that `json.dumps` would not write."""
    return b'{"prompt": "x", "' + field.encode() + b'": ' + text.encode() + b"}"


NUMBERS = ("-1", "1e308", "1e999", "-1e999", "1" + "0" * 400, "9223372036854775808", "0.5", "NaN", "Infinity", "true", '"16"', "[]", "{}")
NUMERIC = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "n", "best_of", "seed", "logprobs", "presence_penalty")
BODIES: tuple[bytes, ...] = (
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"{",
    b'{"prompt": "x", ',
    b'{"prompt": "\xff\xfe"}',
    b'{"prompt": "\xed\xa0\x80"}',
    b"\x00" * 100,
    '{"prompt": "x"}'.encode("utf-16"),
    b'{"prompt": "\\ud800"}',
    b"[" * DEEP,
    b'{"a":' * DEEP,
    b'{"prompt": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    body(prompt=[]),
    body(prompt=[[]]),
    body(prompt=""),
    body(prompt=[-1]),
    body(prompt=[2**31]),
    body(prompt=[10**30]),
    body(prompt=[0.5]),
    body(prompt=["x", 1]),
    body(prompt="many words " * 200_000),
    body(prompt=["x"] * 100_000),
    body(stop=[""]),
    body(stop=["x"] * 1000),
    body(stop="x" * 10_000),
    body(logit_bias={"x": 1}),
    body(logit_bias={"99999999": 1}),
    body(logit_bias={str(i): 1 for i in range(5000)}),
    body(logit_bias={"1": 1e30}),
    body(model="somebody-else"),
    body(model={"$ne": None}),
    body(stream="yes"),
    body(stream_options={"include_usage": True}),
    body(unknown_field=1),
    body(suffix="x"),
    body(n=5, best_of=2),
    body(user=["x"] * 1000),
)
LINES: tuple[bytes, ...] = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # somebody speaks TLS
    b"GET / HTTP/9.9\r\n\r\n",
    b"BREW /pot HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
    b"GET /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    b"GET /%00%ff/../../etc/passwd HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: many\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
    bytes(range(256)) * 20,
)


def malformed(random: Random) -> bytes:
    return post(PATH, random.choice(BODIES))


def absurd(random: Random) -> bytes:
    return post(PATH, number(random.choice(NUMERIC), random.choice(NUMBERS)))


def oversized(random: Random) -> bytes:
    return post(PATH, b'{"prompt": "' + b"x" * OVERSIZED_BYTES + b'"}')


def garbage(random: Random) -> bytes:
    return random.choice((*LINES, random.randbytes(random.randint(1, 3000))))


def mistyped(random: Random) -> bytes:
    return post(PATH, body(), kind=random.choice(("text/plain", "application/x-www-form-urlencoded", "")))


ODD: tuple[Odd, ...] = (malformed, absurd, oversized, garbage, mistyped)
