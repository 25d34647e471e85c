"""Chat through the real `openai` client, and every mistake in a chat."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field
from starlette.types import ASGIApp

from models.chat import ChatTemplate
from models.tokenizer import Tokenizer
from server.api.app import build_app
from server.service import Service
from tests.server.api.asking import ask, checked
from tests.server.api.live import live_server
from tests.server.fakes import MemoryModel, greedy, running_service

PATH = "/v1/chat/completions"
TEMPLATE = ChatTemplate.read(Path(__file__).parents[2] / "chatml.jinja", {})
HELLO: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
RENDERED = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def service(tokenizer: Tokenizer) -> Iterator[Service]:
    with running_service(tokenizer, MemoryModel(), slots=3, queue_size=20, context=512) as service:
        yield replace(service, chat=TEMPLATE)


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[openai.OpenAI]:
    with live_server(service) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def app(service: Service) -> ASGIApp:
    return build_app(service)


def said(count: int) -> str:
    return bytes(greedy(list(RENDERED.encode()), count)).decode()


def test_an_answer_is_what_the_model_writes_after_the_rendered_messages(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="fake", messages=HELLO, max_tokens=6, temperature=0)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", said(6), "length")
    assert choice.logprobs is None
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(RENDERED), 6)
    assert answer.usage.prompt_tokens_details is not None


def test_a_stream_says_who_speaks_then_what_then_why_it_ended(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="fake", messages=HELLO, max_completion_tokens=6, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    first, *middle, last, usage = chunks
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle) == said(6)
    assert all(chunk.choices[0].delta.role is None for chunk in middle)
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert last.model_extra is not None
    assert last.model_extra["timings"]["predicted_n"] == 6
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.total_tokens == len(RENDERED) + 6


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("top", [None, 0, 4])
def test_log_probabilities_token_by_token(client: openai.OpenAI, stream: bool, n: int, top: int | None) -> None:
    extra: Any = {} if top is None else {"logprobs": True, "top_logprobs": top}
    asked: Any = {"model": "fake", "messages": HELLO, "max_tokens": 5, "n": n, "seed": 3} | extra
    texts, entries = [""] * n, [[] for _ in range(n)]  # type: ignore[var-annotated]
    if stream:
        for chunk in client.chat.completions.create(**asked, stream=True):
            for part in chunk.choices:
                texts[part.index] += part.delta.content or ""
                entries[part.index] += (part.logprobs.content or []) if part.logprobs else []
    else:
        for choice in client.chat.completions.create(**asked).choices:
            texts[choice.index] += choice.message.content or ""
            entries[choice.index] += (choice.logprobs.content or []) if choice.logprobs else []
    assert len(set(texts)) == n
    for text, own in zip(texts, entries, strict=True):
        assert len(own) == (0 if top is None else 5)
        assert top is None or "".join(entry.token for entry in own) == text
        assert all(bytes(entry.bytes or []).decode() == entry.token for entry in own)
        assert all(len(entry.top_logprobs) == top for entry in own)
        assert all(entry.logprob <= max([one.logprob for one in entry.top_logprobs], default=0) for entry in own)


def test_an_answer_may_be_sent_back_as_it_came(client: openai.OpenAI) -> None:
    """The usual loop: the message of the answer, null fields and all, then the next question."""
    first = client.chat.completions.create(model="fake", messages=HELLO, max_tokens=6, temperature=0).choices[0].message
    question = {"role": "user", "content": "More"}
    wanted = list(f"{RENDERED}{said(6)}<|im_end|>\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n".encode())
    nulls = dict.fromkeys(("refusal", "tool_calls", "function_call", "audio", "annotations", "name"))
    for sent_back in (first, first.model_dump(), {"role": "assistant", "content": first.content} | nulls):
        talk: Any = [*HELLO, sent_back, question]
        again = client.chat.completions.create(model="fake", messages=talk, max_tokens=6, temperature=0)
        assert again.choices[0].message.content == bytes(greedy(wanted, 6)).decode()


def test_without_a_limit_an_answer_fills_the_context(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="fake", messages=HELLO)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 512


def test_the_parts_of_a_message_are_one_text_and_developer_is_system(client: openai.OpenAI) -> None:
    parts: Any = [
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
        {"role": "user", "content": "Hello"},
    ]
    assert client.chat.completions.create(model="fake", messages=parts, max_tokens=6, temperature=0).choices[0].message.content == said(6)


def test_an_answer_in_a_form_that_was_asked_for(client: openai.OpenAI) -> None:
    """This model would write letters; every form is kept all the same, streamed or not."""
    schema = {"type": "object", "properties": {"depth": {"type": "integer"}}, "required": ["depth"], "additionalProperties": False}
    by_schema: Any = {"type": "json_schema", "json_schema": {"name": "sea", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(model="fake", messages=HELLO, max_tokens=200, seed=1, response_format=by_schema)
    assert list(json.loads(answer.choices[0].message.content or "")) == ["depth"]
    assert answer.choices[0].finish_reason == "stop"
    by_regex: Any = {"type": "regex", "regex": "[0-9]{3}-[0-9]{2}"}
    stream = client.chat.completions.create(model="fake", messages=HELLO, n=2, response_format=by_regex, stream=True)
    texts = ["", ""]
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert all(len(text) == 6 and text[3] == "-" for text in texts)
    loose: Any = {"type": "json_object"}
    bias = {str(ord("}")): 100}
    short = client.chat.completions.create(model="fake", messages=HELLO, max_tokens=99, response_format=loose, logit_bias=bias)
    assert json.loads(short.choices[0].message.content or "") == {}
    plain = client.chat.completions.create(
        model="fake", messages=HELLO, max_tokens=6, temperature=0, response_format={"type": "text"}, extra_body={"ignore_eos": True}
    )
    assert plain.choices[0].message.content == said(6)


def test_completions_take_a_form_too(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="fake", prompt=["a", "b"], n=2, max_tokens=9, extra_body={"response_format": {"type": "regex", "regex": "x?[0-9]{4}"}}
    )
    assert all(choice.text.removeprefix("x").isdigit() and len(choice.text.removeprefix("x")) == 4 for choice in answer.choices)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x", "refusal": "no"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 4097}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"logprobs": 5}, "logprobs"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"functions": []}, "functions"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"prompt": "x"}, "prompt"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"logit_bias": {"258": 1}}, "logit_bias"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objekt"}}}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 5}}}, "response_format"),
        ({"response_format": {"type": "regex", "regex": "("}}, "response_format"),
        ({"response_format": {"type": "regex", "regex": ""}}, "response_format"),
        ({"response_format": {"type": "json_object"}, "ignore_eos": True}, "ignore_eos"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_field_is_a_400_that_names_it(app: ASGIApp, fields: dict[str, Any], param: str, stream: bool) -> None:
    body = {"messages": HELLO, "stream": stream} | fields
    if param == "stream_options" and stream:
        body["stream_options"] = {"more": 1}
    answer = ask(app, "POST", PATH, content=json.dumps(body), headers={"content-type": "application/json"})
    error = checked(answer)
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert error["message"].startswith(param)


def test_another_model_is_a_404_and_a_long_talk_does_not_fit(app: ASGIApp) -> None:
    assert ask(app, "POST", PATH, json={"messages": HELLO, "model": "gpt-9"}).status_code == 404
    answer = ask(app, "POST", PATH, json={"messages": [{"role": "user", "content": "x" * 500}]})
    assert answer.status_code == 400
    assert checked(answer)["code"] == "context_length_exceeded"
    assert checked(answer)["param"] == "messages"
    assert "512" in checked(answer)["message"]


def test_a_model_without_a_template_says_what_to_do(tokenizer: Tokenizer, service: Service) -> None:
    answer = ask(build_app(replace(service, chat=None)), "POST", PATH, json={"messages": HELLO})
    assert answer.status_code == 400
    assert checked(answer)["code"] == "no_chat_template"
    assert "--chat-template" in checked(answer)["message"]


def test_what_a_template_refuses_is_a_400_with_its_words(service: Service) -> None:
    picky = ChatTemplate.build("{{ raise_exception('roles must alternate') }}", {}, Path("x"))
    answer = ask(build_app(replace(service, chat=picky)), "POST", PATH, json={"messages": HELLO})
    assert answer.status_code == 400
    assert "roles must alternate" in checked(answer)["message"]


def test_null_means_left_out(app: ASGIApp) -> None:
    names = (
        "max_tokens max_completion_tokens temperature top_p top_k min_p presence_penalty frequency_penalty repetition_penalty n stop "
        "stop_token_ids ignore_eos seed logprobs top_logprobs logit_bias stream stream_options user model tools tool_choice functions "
        "function_call response_format"
    ).split()
    assert ask(app, "POST", PATH, json={"messages": HELLO} | dict.fromkeys(names)).status_code == 200


def test_the_asynchronous_client_gets_many_answers_at_once(client: openai.OpenAI) -> None:
    async def story() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=str(client.base_url), api_key="none") as own:
            asked = [own.chat.completions.create(model="fake", messages=HELLO, max_tokens=6, temperature=0) for _ in range(8)]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*asked)]

    assert asyncio.run(story()) == [said(6)] * 8


class Depth(BaseModel):
    side: Literal["hot", "cold"]
    known: bool
    layers: list[Literal[1, 2]] = Field(max_length=3)


def test_the_clients_own_helpers_parse_what_follows_their_schema(client: openai.OpenAI) -> None:
    """Of an answer, and of a stream whose events it puts together."""
    asked: Any = {"model": "fake", "messages": HELLO, "response_format": Depth, "max_tokens": 300, "seed": 1, "logit_bias": {"32": -100}}
    parsed = client.chat.completions.parse(**asked).choices[0].message.parsed
    with client.chat.completions.stream(**asked) as stream:
        kinds = {event.type for event in stream}
        found = stream.get_final_completion()
    assert isinstance(parsed, Depth)
    assert found.choices[0].message.parsed == parsed
    assert {"chunk", "content.delta", "content.done"} <= kinds
