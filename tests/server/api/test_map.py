"""GET /map over real HTTP: the layout once, what fires as it happens, and an end when the server stops."""

import base64
import json
import threading
import time
from collections.abc import Iterator

import httpx
import jsonschema_rs
import numpy as np
import pytest

from models.tokenizer import Tokenizer
from server.api import map
from server.service import Service
from server.watching import MOST_WATCHERS, Firing
from tests.server.api.live import live_server
from tests.server.fakes import LAYOUT, MemoryModel, running_service


@pytest.fixture
def service(tokenizer: Tokenizer) -> Iterator[Service]:
    with running_service(tokenizer, MemoryModel()) as running:
        yield running


def firing(value: int) -> Firing:
    return Firing(tokens=2, cells=np.full((2, 10), value, np.uint8), fired_hot=1, fired_cold=value)


def events(answer: httpx.Response) -> Iterator[dict[str, object]]:
    return (json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: "))


def test_the_layout_comes_first_and_then_what_fires(service: Service) -> None:
    with live_server(service) as url, httpx.stream("GET", f"{url}/map") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        coming = events(answer)
        assert next(coming) == {"type": "layout", "layers": 2, "experts": 1, "neurons": 10, "edges": LAYOUT.edges, "hot": [3, 0]}
        service.watch.publish(firing(7))
        got = next(coming)
        assert base64.b64decode(str(got.pop("cells"))) == bytes([7] * 20)
        assert got == {"type": "firing", "tokens": 2, "fired_gpu": 1, "fired_cpu": 7}


def test_the_document_describes_every_event(service: Service) -> None:
    with live_server(service) as url, httpx.stream("GET", f"{url}/map") as answer:
        operation = httpx.get(f"{url}/openapi.json").json()["paths"]["/map"]["get"]
        schema = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]
        coming = events(answer)
        layout = next(coming)
        service.watch.publish(firing(7))
        for event in (layout, next(coming)):
            assert jsonschema_rs.is_valid(schema, event)
            assert not any(jsonschema_rs.is_valid(schema, {key: event[key] for key in event if key != left_out}) for left_out in event)
            assert (
                event.keys()
                == next(one for one in schema["oneOf"] if one["title"].lower().startswith(str(event["type"])))["properties"].keys()
            )
    assert "layout" in operation["description"]


def test_a_server_that_stops_ends_the_map(service: Service) -> None:
    began, ended = threading.Event(), threading.Event()

    def look(url: str) -> None:
        with httpx.stream("GET", f"{url}/map") as answer:
            for _ in events(answer):
                began.set()
        ended.set()

    with live_server(service) as url:
        looking = threading.Thread(target=look, args=(url,))
        looking.start()
        assert began.wait(10)
    assert ended.wait(10)
    looking.join()


def test_who_reads_nothing_holds_nobody_up_and_loses_events(service: Service) -> None:
    with live_server(service) as url, httpx.stream("GET", f"{url}/map") as slow, httpx.stream("GET", f"{url}/map") as quick:
        reading = events(quick)
        next(reading)
        for value in range(5):
            service.watch.publish(firing(value))
            assert next(reading)["fired_cpu"] == value
        assert next(events(slow))["type"] == "layout"


def test_who_reads_nothing_for_long_is_no_watcher_any_more(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once what lies between us is full: 16 of them would keep everybody out."""
    monkeypatch.setattr(map, "SLOWEST_SECONDS", 0.2)
    large = Firing(tokens=1, cells=np.zeros((100, 1000), np.uint8), fired_hot=1, fired_cold=1)
    with live_server(service) as url, httpx.stream("GET", f"{url}/map") as answer:
        coming = events(answer)  # held: a generator that is forgotten hangs up
        next(coming)
        until = time.monotonic() + 20
        while service.watch._listeners and time.monotonic() < until:
            service.watch.publish(large)
            time.sleep(0.002)
        assert not service.watch._listeners


def test_a_client_that_leaves_is_no_watcher_any_more(service: Service) -> None:
    with live_server(service) as url, httpx.Client() as client:
        for _ in range(2 * MOST_WATCHERS):
            with client.stream("GET", f"{url}/map") as answer:
                assert answer.status_code == 200
            client.get(f"{url}/health")  # the server has had its turn


def test_one_watcher_too_many_is_told_to_come_again(service: Service) -> None:
    for _ in range(MOST_WATCHERS):
        service.watch.subscribe(lambda firing: None)
    with live_server(service) as url:
        answer = httpx.get(f"{url}/map")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["error"]["code"] == "too_many_watchers"
