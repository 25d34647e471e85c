"""/docs tells every route and field, and loads nothing from elsewhere."""

import html
import re
from collections.abc import Iterator

import pytest
from starlette.types import ASGIApp

from models.tokenizer import Tokenizer
from server.api.app import build_app
from tests.server.api.asking import ask
from tests.server.fakes import MemoryModel, running_service


@pytest.fixture(scope="module")
def app(tokenizer: Tokenizer) -> Iterator[ASGIApp]:
    with running_service(tokenizer, MemoryModel()) as service:
        yield build_app(service)


def test_every_route_and_every_field_is_told(app: ASGIApp) -> None:
    page, document = html.unescape(ask(app, "GET", "/docs").text), ask(app, "GET", "/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in page
    for name in ("CompletionRequest", "ChatRequest", "TokenizeRequest", "DetokenizeRequest"):
        for field in document["components"]["schemas"][name]["properties"]:
            assert f"<code>{field}</code>: " in page, (name, field)
    for name in ("Message", "TextPart", "StreamOptions", "JsonSchema", "NamedSchema", "Regex"):
        assert page.count(f"<h2><code>{name}</code></h2>") == 1
        for field in document["components"]["schemas"][name]["properties"]:
            assert f"<code>{field}</code>: " in page.split(f"<h2><code>{name}</code></h2>")[1].split("<h2>")[0], (name, field)
    assert "<h2><code>ErrorAnswer</code></h2>" not in page
    assert "<code>temperature</code>: number (≥ 0, ≤ 100); default 1.0" in page
    assert "<code>stop</code>: string (at least 1 characters, at most 256 characters) or list of string" in page


def test_a_finished_choice_says_stop_or_length(app: ASGIApp) -> None:
    schemas = ask(app, "GET", "/openapi.json").json()["components"]["schemas"]
    for name in ("TextChoice", "ChatChoice"):
        assert schemas[name]["properties"]["finish_reason"]["anyOf"] == [{"type": "string", "enum": ["stop", "length"]}, {"type": "null"}]


def test_nothing_comes_from_elsewhere(app: ASGIApp) -> None:
    answer = ask(app, "GET", "/docs")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"https?:|//|<script", answer.text)
    assert ask(app, "GET", "/web/page.css").status_code == 200
    assert ask(app, "GET", "/redoc").status_code == 404


@pytest.mark.parametrize("path", ["/", "/health"])
def test_a_watchdog_may_ask_for_the_head_only(app: ASGIApp, path: str) -> None:
    assert ask(app, "HEAD", path).status_code == 200
