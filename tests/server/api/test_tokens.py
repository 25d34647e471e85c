"""/tokenize and /detokenize."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp

from models.chat import ChatTemplate
from models.paths import BUNDLED_MODEL
from models.tokenizer import Tokenizer
from server.api.app import build_app
from server.api.reading import LARGE_CHARACTERS
from server.grammars import Grammars
from tests.server.api.asking import ask, checked
from tests.server.fakes import MemoryModel, running_service

TEMPLATE = ChatTemplate.build("{% for m in messages %}{{ m.content }}|{% endfor %}", {}, Path("x"))


@pytest.fixture(scope="module")
def app(tokenizer: Tokenizer) -> Iterator[ASGIApp]:
    """The bundled model's tokenizer, whose tokens are longer than a byte."""
    own = Tokenizer.open(BUNDLED_MODEL)
    with running_service(tokenizer, MemoryModel()) as service:
        yield build_app(replace(service, tokenizer=own, vocab=4096, chat=TEMPLATE, grammars=Grammars(own, 4096, frozenset({0}))))


def tokenized(app: ASGIApp, **body: Any) -> dict[str, Any]:
    answer = ask(app, "POST", "/tokenize", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@given(text=st.text(max_size=40).filter(lambda text: "<|endoftext|>" not in text))
def test_there_and_back(app: ASGIApp, text: str) -> None:
    ids = tokenized(app, content=text)["tokens"]
    assert ask(app, "POST", "/detokenize", json={"tokens": ids}).json() == {"content": text}


def test_what_a_completion_has_before_its_text_is_added_when_asked_for(app: ASGIApp) -> None:
    plain, special = tokenized(app, content="import os"), tokenized(app, content="import os", add_special=True)
    assert special["tokens"] == [0, *plain["tokens"]]
    assert (plain["count"], plain["max_model_len"]) == (len(plain["tokens"]), 64)


def test_pieces_show_what_each_token_stands_for(app: ASGIApp) -> None:
    pieces = tokenized(app, content="import os", with_pieces=True)["tokens"]
    assert "".join(piece["piece"] for piece in pieces) == "import os"
    assert [piece["id"] for piece in pieces] == tokenized(app, content="import os")["tokens"]


def test_messages_are_what_a_chat_would_be(app: ASGIApp) -> None:
    messages = [{"role": "user", "content": "import"}, {"role": "user", "content": "os"}]
    assert tokenized(app, messages=messages)["tokens"] == tokenized(app, content="import|os|", add_special=True)["tokens"]


@pytest.mark.parametrize("chat", [False, True])
def test_large_texts_are_read_one_at_a_time(tokenizer: Tokenizer, chat: bool) -> None:
    """Of messages too."""
    asked: list[object] = []

    class Noting(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            asked.append(args)
            return super().submit(*args, **kwargs)

    text = "x" * (LARGE_CHARACTERS + 1)
    body: Any = {"messages": [{"role": "user", "content": text}]} if chat else {"content": text}
    with running_service(tokenizer, MemoryModel()) as service, Noting(1) as large:
        found = ask(build_app(replace(service, chat=TEMPLATE, large_texts=large)), "POST", "/tokenize", json=body).json()
    assert found["count"] >= len(text)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": "x", "messages": [{"role": "user", "content": "x"}]}, "content"),
        ("/tokenize", {"content": 5}, "content"),
        ("/tokenize", {"content": "\ud800"}, "content"),
        ("/tokenize", {"text": "x"}, "text"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [4096]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": "1"}, "tokens"),
    ],
)
def test_a_bad_field_is_a_400_that_names_it(app: ASGIApp, path: str, body: dict[str, Any], param: str) -> None:
    answer = ask(app, "POST", path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert checked(answer)["param"] == param
