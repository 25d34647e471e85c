"""The orderly end of a server: what those are told who are not finished when it waits no longer."""

import asyncio
import json
import threading
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from models.tokenizer import Tokenizer
from server.api import serve
from server.api.envelope import Envelope
from server.service import Service
from tests.server.api.asking import checked
from tests.server.api.live import live_server
from tests.server.fakes import GatedModel, running_service

BODY = {"prompt": "x", "max_tokens": 40}


def go_on_when_closed(service: Service, model: GatedModel) -> None:
    """The step that is under way when the drain is over comes to its end."""
    service.bridge._closed.wait(20)
    model.gate.release(1000)


def test_who_is_not_finished_when_the_drain_is_over_is_told_in_our_shape(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    """One whole answer, one stream that has begun, and one request that waits for a slot: no 500, no traceback, no [DONE]."""
    model, answers, lines, begun = GatedModel(), list[httpx.Response](), list[str](), threading.Event()

    def ask(url: str) -> None:
        answers.append(httpx.post(f"{url}/v1/completions", json=BODY, verify=False, timeout=30))

    def read(url: str) -> None:
        with httpx.stream("POST", f"{url}/v1/completions", json=BODY | {"stream": True}, verify=False, timeout=30) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                begun.set()

    with running_service(tokenizer, model, slots=2) as service:
        with live_server(service, drain_seconds=0.2) as url:
            threads = [threading.Thread(target=one, args=(url,)) for one in (read, ask, ask)]
            for thread in threads:
                thread.start()
                while service.bridge.unfinished < 1 + threads.index(thread):
                    pass
            while not begun.is_set():
                model.gate.release()
                begun.wait(0.01)
            threading.Thread(target=go_on_when_closed, args=(service, model)).start()
        for thread in threads:
            thread.join(10)
    assert [answer.status_code for answer in answers] == [503, 503]
    assert {checked(answer)["code"] for answer in answers} == {"shutting_down"}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    *_, last = (json.loads(line.removeprefix("data: ")) for line in lines if line)
    assert last["error"]["code"] == "shutting_down"
    assert not [record for record in caplog.records if record.exc_info]


def test_a_request_that_is_cut_off_in_the_end_is_answered_too(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that takes longer than anybody waits."""
    monkeypatch.setattr(serve, "LAST_WORDS_SECONDS", 0.2)
    model, answers = GatedModel(), list[httpx.Response]()
    with running_service(tokenizer, model, slots=1) as service:
        with live_server(service, drain_seconds=0.1) as url:
            asking = threading.Thread(
                target=lambda: answers.append(httpx.post(f"{url}/v1/completions", json=BODY, verify=False, timeout=30))
            )
            asking.start()
            assert model.entered.acquire(timeout=10)
        asking.join(10)
        model.gate.release(1000)
    assert answers[0].status_code == 503
    assert checked(answers[0])["code"] == "shutting_down"


def test_an_answer_that_has_begun_gets_no_second_head() -> None:
    """Cut off in the middle."""

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60)

    async def story() -> list[Any]:
        sent = list[Any]()

        async def send(message: Any) -> None:
            sent.append(message)

        running = asyncio.create_task(Envelope(endless)({"type": "http", "headers": [], "method": "GET", "path": "/x"}, None, send))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        running.cancel()
        await running
        return sent

    assert [message["status"] for message in asyncio.run(story())] == [200]
