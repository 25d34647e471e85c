"""A line an event, for people and for programs."""

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from models.chat import ChatTemplate
from models.tokenizer import Tokenizer
from server.api.app import build_app
from server.logs import REQUEST_ID, start_logging
from tests.server.api.asking import ask
from tests.server.fakes import MemoryModel, running_service


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    """Leaves the root logger as it was."""
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    yield
    root.handlers[:] = kept
    root.setLevel(level)


def test_json_has_one_object_a_line_with_facts_and_tracebacks() -> None:
    stream = io.StringIO()
    start_logging("json", stream)
    log, token = logging.getLogger("server.x"), REQUEST_ID.set("req_1")
    log.info("%d\nlines", 2, extra={"facts": {"status": 200}})
    REQUEST_ID.reset(token)
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (first["message"], first["request_id"], first["status"], first["level"]) == ("2\nlines", "req_1", 200, "info")
    assert "request_id" not in second
    assert "ValueError: broken" in second["traceback"]


def test_text_begins_with_the_time_and_the_request() -> None:
    stream = io.StringIO()
    start_logging("text", stream)
    token = REQUEST_ID.set("req_1")
    logging.getLogger("server.x").info("hello")
    REQUEST_ID.reset(token)
    assert stream.getvalue().endswith(" req_1 hello\n")


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_request_is_two_lines_with_one_id_and_its_prompt_only_when_asked_for(tokenizer: Tokenizer, told: bool, streamed: bool) -> None:
    stream = io.StringIO()
    start_logging("json", stream)
    with running_service(tokenizer, MemoryModel()) as service:
        app: ASGIApp = build_app(replace(service, log_prompts=told))
        ask(app, "POST", "/v1/completions", json={"prompt": "my secret", "stream": streamed}, headers={"x-request-id": "mine"})
    lines = [json.loads(line) for line in stream.getvalue().splitlines() if '"server.' in line]
    assert {line["request_id"] for line in lines} == {"mine"}
    access = next(line for line in lines if line["logger"] == "server.access")
    assert (access["method"], access["path"], access["status"]) == ("POST", "/v1/completions", 200)
    assert access["ms"] > 0
    timed = next(line for line in lines if "predicted_n" in line)
    assert timed["predicted_n"] == 16
    assert timed["id"].startswith("cmpl-")
    assert ("my secret" in stream.getvalue()) == told


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_text_of_anybody_is_in_the_log_of_any_route_or_failure(tokenizer: Tokenizer, form: str) -> None:
    """Chats, tokens, refusals, and a step that fails."""
    stream, secret = io.StringIO(), "a secret"
    start_logging(form, stream)
    template = ChatTemplate.build(
        "{% for m in messages %}{{ m.content }}{% if 'refuse' in m.content %}{{ raise_exception(m.content) }}{% endif %}{% endfor %}",
        {},
        Path("x"),
    )
    with running_service(tokenizer, MemoryModel(broken_token=ord("!"))) as service:
        app = build_app(replace(service, chat=template))
        for streamed in (False, True):
            for text in (secret, f"{secret}!", f"refuse {secret}", f"{secret}{secret * 20}"):
                talk = {"messages": [{"role": "user", "content": text}], "max_tokens": 2, "stream": streamed}
                ask(app, "POST", "/v1/chat/completions", json=talk)
                ask(app, "POST", "/v1/completions", json={"prompt": [text, text], "stop": secret, "user": secret, "stream": streamed})
        ask(app, "POST", "/v1/completions", json={"prompt": secret, "model": secret})
        ask(app, "POST", "/v1/completions", json={"prompt": secret, secret: 1})
        ask(app, "POST", "/tokenize", json={"content": secret})
        ask(app, "POST", "/detokenize", json={"tokens": list(secret.encode())})
    said = stream.getvalue()
    assert "a step of" in said
    assert secret not in said
