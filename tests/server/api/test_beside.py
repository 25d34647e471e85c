"""What takes long for one answer is done in a thread, and the event loop goes on for all others."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llguidance import LLTokenizer

from models.chat import ChatTemplate
from models.tokenizer import Tokenizer
from server.api import generation, text_answers
from server.api.answers import joined
from server.api.app import build_app
from server.grammars import Grammars
from tests.server.api.asking import ask
from tests.server.fakes import EOS, VOCAB, MemoryModel, running_service


def noting(function: Any, threads: list[threading.Thread]) -> Any:
    def noted(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.current_thread())
        return function(*args, **kwargs)

    return noted


@pytest.mark.parametrize("stream", [False, True])
def test_every_token_of_a_scored_prompt_is_spelled_in_a_thread(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    threads = list[threading.Thread]()
    monkeypatch.setattr(text_answers, "spelled", noting(text_answers.spelled, threads))
    monkeypatch.setattr(generation, "MANY_ENTRIES", 2)
    with running_service(tokenizer, MemoryModel()) as service:
        body = {"prompt": ["one", "two"], "echo": True, "logprobs": 1, "max_tokens": 2, "stream": stream}
        assert ask(build_app(service), "POST", "/v1/completions", json=body).status_code == 200
    assert len(threads) == 2
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("logprobs", [None, 2])
def test_so_are_the_entries_of_many_choices_and_a_small_answer_is_not(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, logprobs: int | None
) -> None:
    threads = list[threading.Thread]()
    monkeypatch.setattr("server.api.text_answers.joined", noting(joined, threads))
    with running_service(tokenizer, MemoryModel(), slots=4) as service:
        app = build_app(service)
        for choices in (100, 2):
            body = {"prompt": "x", "n": choices, "logprobs": logprobs, "max_tokens": 3}
            assert ask(app, "POST", "/v1/completions", json=body).status_code == 200
    inside = [thread is threading.main_thread() for thread in threads]
    assert inside == [logprobs is None] * 100 + [True] * 2


def test_a_vocabulary_is_read_in_a_thread_when_a_chat_first_asks_for_bytes(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = list[threading.Thread]()
    monkeypatch.setattr("server.grammars.LLTokenizer", noting(LLTokenizer, threads))
    template = ChatTemplate.build("{{ messages[0].content }}", {}, Path("x"))
    body: Any = {"messages": [{"role": "user", "content": "x"}], "logprobs": True, "max_tokens": 2}
    with running_service(tokenizer, MemoryModel()) as service:
        app = build_app(replace(service, chat=template, grammars=Grammars(tokenizer, VOCAB, frozenset({EOS}))))
        for _ in range(2):
            assert ask(app, "POST", "/v1/chat/completions", json=body).status_code == 200
    assert len(threads) == 1
    assert threading.main_thread() not in threads
