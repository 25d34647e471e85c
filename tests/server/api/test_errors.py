"""Every mistake a client can make: its status, and the one shape of all errors. No network, the application itself."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest
from pydantic import ValidationError
from starlette.types import ASGIApp

from models.tokenizer import Tokenizer
from server.api.app import Door, build_app
from server.api.bounds import USUAL
from server.api.tokens import DetokenizeRequest
from tests.server.api.asking import ask, checked, client_of
from tests.server.fakes import GatedModel, MemoryModel, running_service

PATH = "/v1/completions"
JSON = {"content-type": "application/json"}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def app(tokenizer: Tokenizer) -> Iterator[ASGIApp]:
    with running_service(tokenizer, MemoryModel()) as service:
        yield build_app(service, Door(limits=replace(USUAL, body_bytes=20_000)))


def complaint(app: ASGIApp, status: int, **sent: Any) -> dict[str, Any]:
    """The error that a POST of completions ends in."""
    answer = ask(app, "POST", PATH, **sent)
    assert answer.status_code == status, answer.text
    return checked(answer)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["ok", ""]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [1, [2]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [258]}, "prompt"),
        ({"prompt": [10**30]}, "prompt"),
        ({"prompt": [[1], [2**31]]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": ["x"] * 129}, "prompt"),
        ({"prompt": ["x"] * 65, "n": 2}, "prompt"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": "16"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 10**40}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 1e9}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": -0.01}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"best_of": 0}, "best_of"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"n": 1, "best_of": 2, "stream": True}, "best_of"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": 5}, "stop"),
        ({"stop_token_ids": [258]}, "stop_token_ids"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"seed": 2**63}, "seed"),
        ({"seed": "one"}, "seed"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"258": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"foo": 0}}, "logit_bias"),
        ({"logit_bias": {"9" * 400: 0}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": []}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"more": True}}, "stream_options"),
        ({"stream": "yes"}, "stream"),
        ({"suffix": "the end"}, "suffix"),
        ({"user": 5}, "user"),
        ({"temprature": 0.5}, "temprature"),
        ({"echo": 1}, "echo"),
    ],
)
def test_a_bad_field_is_a_400_that_names_it(app: ASGIApp, fields: dict[str, Any], param: str) -> None:
    error = complaint(app, 400, content=json.dumps({"prompt": "x"} | fields), headers=JSON)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(param)


def test_a_missing_prompt_is_named(app: ASGIApp) -> None:
    assert complaint(app, 400, json={})["param"] == "prompt"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"prompt"',
        b"null",
        b"\xff\xfe{}",
        b'{"prompt": "\xff"}',
        b'{"prompt": "x", "temperature": NaN}',
        b'{"prompt": "x", "temperature": Infinity}',
        b'{"prompt": "x", "top_p": -Infinity}',
        b'{"prompt": "x", "temperature": 1e999}',
        b'{"prompt": "x", "logit_bias": {"1": NaN}}',
        b'{"prompt": ' + b"[" * 9000 + b"]" * 9000 + b"}",
        b'{"prompt": [' + b"9" * 9000 + b"]}",
        b'{"prompt": "x", "\\ud800": 1}',
        b'{"prompt": "x", "user": "\\ud800"}',
        b'{"prompt": "x", "model": "\\udfff"}',
        b'{"prompt": "x", "stop": ["\\udfff"]}',
    ],
)
def test_a_body_that_is_no_request_is_a_400(app: ASGIApp, body: bytes) -> None:
    complaint(app, 400, content=body, headers=JSON)


def test_the_wrong_content_type_is_a_400_that_says_so(app: ASGIApp) -> None:
    assert "application/json" in complaint(app, 400, content=b'{"prompt": "x"}', headers={"content-type": "text/plain"})["message"]


def test_a_body_far_over_the_limit_is_a_413_and_not_read_to_its_end(app: ASGIApp) -> None:
    read = []

    async def endless() -> Any:
        for _ in range(1000):
            read.append(1)
            yield b"x" * 1000

    answer = ask(app, "POST", PATH, content=endless())
    assert answer.status_code == 413
    assert checked(answer)["code"] == "body_too_large"
    assert len(read) == 81  # four times the limit, for those who would not read the answer before


def test_null_means_left_out(app: ASGIApp) -> None:
    names = (
        "max_tokens temperature top_p top_k min_p presence_penalty frequency_penalty repetition_penalty n best_of stop "
        "stop_token_ids ignore_eos seed logprobs echo logit_bias stream stream_options suffix user model"
    ).split()
    answer = ask(app, "POST", PATH, json={"prompt": "x"} | dict.fromkeys(names))
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 16


def test_unknown_routes_and_methods_have_the_shape_too(app: ASGIApp) -> None:
    missing = ask(app, "GET", "/v2/nothing")
    assert missing.status_code == 404
    assert checked(missing)["code"] == "not_found"
    wrong = ask(app, "GET", PATH)
    assert wrong.status_code == 405
    assert checked(wrong)["code"] == "method_not_allowed"
    assert wrong.headers["allow"] == "POST"


def test_the_context_has_room_for_one_more_token_or_for_none(app: ASGIApp) -> None:
    """64 tokens fit a slot."""
    error = complaint(app, 400, json={"prompt": "x" * 64})
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
    assert "64 tokens" in error["message"]
    assert ask(app, "POST", PATH, json={"prompt": "x" * 63}).json()["usage"]["completion_tokens"] == 1
    scored = ask(app, "POST", PATH, json={"prompt": "x" * 64, "max_tokens": 0, "echo": True, "logprobs": 0})
    assert len(scored.json()["choices"][0]["logprobs"]["tokens"]) == 64


def test_a_full_queue_is_a_503_that_says_when_to_come_back(tokenizer: Tokenizer) -> None:
    model = GatedModel()
    body = {"prompt": "x", "max_tokens": 2}

    async def story(app: ASGIApp) -> list[httpx.Response]:
        async with client_of(app) as client:
            taken = [asyncio.create_task(client.post(PATH, json=body)) for _ in range(3)]
            await asyncio.to_thread(model.entered.acquire)
            while (await client.get("/health")).json()["unfinished"] < 3:
                pass
            refused = [await client.post(PATH, json=body | {"stream": stream}) for stream in (False, True)]
            model.gate.release(1000)
            return [*refused, *await asyncio.gather(*taken)]

    with running_service(tokenizer, model, slots=1, queue_size=2) as service:
        answers = asyncio.run(story(build_app(service)))
    assert [answer.status_code for answer in answers] == [503, 503, 200, 200, 200]
    for answer in answers[:2]:
        assert checked(answer)["code"] == "queue_full"
        assert int(answer.headers["retry-after"]) > 0


def test_a_stopped_engine_is_not_healthy(tokenizer: Tokenizer) -> None:
    with running_service(tokenizer, MemoryModel()) as service:
        app = build_app(service)
        assert ask(app, "GET", "/health").json()["status"] == "ok"
        service.bridge.stop(10)
        answer = ask(app, "GET", "/health")
        assert answer.status_code == 503
        assert checked(answer)["code"] == "shutting_down"


def test_when_the_gpu_is_lost_health_says_so_and_requests_are_a_503(tokenizer: Tokenizer) -> None:
    """The one whose step it was is a 500, whoever comes later a 503 that does not say that somebody stopped the server."""

    def lost() -> None:
        raise RuntimeError("no such device")

    with running_service(tokenizer, MemoryModel(broken_token=7)) as service:
        app = build_app(service)
        service.bridge._engine._recover = lost
        assert complaint(app, 500, json={"prompt": [7]})["code"] == "step_failed"
        while service.bridge.alive:
            pass
        assert complaint(app, 503, json={"prompt": "x"})["code"] == "engine_stopped"
        answer = ask(app, "GET", "/health")
        assert answer.status_code == 503
        assert checked(answer)["code"] == "engine_stopped"


def test_no_prompt_is_in_the_log(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        ask(app, "POST", PATH, json={"prompt": "my secret"})
        ask(app, "POST", PATH, json={"prompt": "my secret", "top_p": 7})
    assert "POST /v1/completions 200" in caplog.text
    assert "my secret" not in caplog.text


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_watchdogs_do_not_fill_the_log_unless_they_are_told_of_a_fault(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    with running_service(tokenizer, MemoryModel()) as service, caplog.at_level("INFO"):
        app = build_app(service)
        ask(app, "GET", path)
        ask(app, "POST", path)
    lines = [record.getMessage() for record in caplog.records if record.name == "server.access"]
    assert len(lines) == 1
    assert lines[0].startswith(f"POST {path} 405")


def test_our_own_document_describes_the_request(app: ASGIApp) -> None:
    document = ask(app, "GET", "/openapi.json").json()
    fields = document["components"]["schemas"]["CompletionRequest"]["properties"]
    assert {"prompt", "stop_token_ids", "repetition_penalty", "stream_options"} <= fields.keys()
    assert json.dumps(document)


class BrokenTokenizer:
    def encode(self, text: str) -> list[int]:
        raise RuntimeError("nobody foresaw this")


def test_our_own_mistake_is_a_500_that_says_nothing_of_the_inside(tokenizer: Tokenizer) -> None:
    async def story(app: ASGIApp) -> httpx.Response:
        transport = httpx.ASGITransport(cast(Any, app), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", verify=False) as client:
            return await client.post(PATH, json={"prompt": "x"})

    with running_service(tokenizer, MemoryModel()) as service:
        answer = asyncio.run(story(build_app(replace(service, tokenizer=cast(Tokenizer, BrokenTokenizer())))))
    assert answer.status_code == 500
    assert checked(answer)["code"] == "internal_error"
    assert "foresaw" not in answer.text


USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (CHAT, {"messages": [USER | {"content": 5}]}, "messages.0.content: must be a text"),
        (CHAT, {"messages": [USER, USER | {"content": [{"type": "image_url"}]}]}, "images and sounds are not supported"),
        (CHAT, {"messages": ["x"]}, "messages.0: must be a JSON object"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages.0.content: is missing"),
        (CHAT, {"messages": [USER | {"tool_call_id": "1"}]}, "messages.0.tool_call_id: unknown field"),
        (PATH, {"prompt": "x", "response_format": "json"}, "response_format: must be a JSON object"),
        (PATH, {"prompt": "x", "response_format": {}}, "response_format: has no type"),
        (
            PATH,
            {"prompt": "x", "response_format": {"type": "x{y}ml"}},
            "response_format: has the unknown type x{y}ml; there are 'text', 'json_",
        ),
        (PATH, {"prompt": "x", "response_format": {"type": "regex"}}, "response_format.regex: is missing"),
        (
            PATH,
            {"prompt": "x", "response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format.json_schema.schema: is missing",
        ),
        (PATH, {"prompt": "x", "logit_bias": {"1": "x"}}, "logit_bias.1: Input should be a valid number"),
        (PATH, {}, "prompt: is missing"),
        (PATH, [], "the body must be a JSON object, with content-type application/json"),
    ],
)
def test_a_complaint_speaks_of_what_was_sent(app: ASGIApp, path: str, body: Any, message: str) -> None:
    """Not of what it was read with."""
    answer = ask(app, "POST", path, json=body)
    assert answer.status_code == 400
    assert message in checked(answer)["message"]
    assert not re.search(r"\[|function|valid dictionary|extract", checked(answer)["message"])


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (PATH, {"prompt": "x"} | {f"f{number}": 1 for number in range(64)}, "the body has more than 64 fields"),
        (CHAT, {"messages": [USER | {f"f{number}": 1 for number in range(64)}]}, "messages.0: has more than 64 fields"),
        (CHAT, {"messages": [USER | {"content": [{"type": "text", "text": ""}] * 4097}]}, "messages.0.content: must be"),
        (PATH, {"prompt": [[]] * 129}, "prompt: must be a string, a list of strings"),
        (PATH, {"prompt": ["x"] * 129}, "of at most 128 texts"),
        (PATH, {"prompt": [1] * ((1 << 20) + 1)}, "prompt: must be a string"),
        ("/detokenize", {"tokens": [1] * ((1 << 20) + 1)}, "tokens: List should have at most 1048576 items"),
        ("/detokenize", {"tokens": [""] * 9000}, "tokens.0: Input should be a valid integer"),
    ],
)
def test_what_has_very_many_parts_gets_one_complaint(tokenizer: Tokenizer, path: str, body: Any, message: str) -> None:
    """Before they are all looked at: 700,000 complaints took a second and a half in which nobody else was served."""
    with running_service(tokenizer, MemoryModel()) as service:
        answer = ask(build_app(service), "POST", path, json=body)
    assert answer.status_code == 400
    assert message in checked(answer)["message"]


def test_of_a_long_list_of_mistakes_the_first_is_told_and_no_other_looked_for() -> None:
    with pytest.raises(ValidationError) as caught:
        DetokenizeRequest(tokens=[""] * 1000)  # type: ignore[list-item]
    assert caught.value.error_count() == 1
