"""/props and /metrics: what the server is and does, the plan beside what is measured."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.tokenizer import Tokenizer
from server.api.app import build_app
from server.held import Held, MemoryNow
from server.numbers import Numbers
from server.service import Service
from tests.placement.makers import SPEC
from tests.placement.test_plan import plan_for
from tests.server.api.asking import ask, client_of
from tests.server.fakes import GatedModel, MemoryModel, running_service

HELD = Held(device="cpu", spine_bytes=100, hot_bytes=30, cold_bytes=70, kv_bytes=10, hot=(2, 1, 0, 4))


@pytest.fixture(scope="module")
def service(tokenizer: Tokenizer) -> Iterator[Service]:
    with running_service(tokenizer, MemoryModel(), slots=3) as service:
        yield replace(service, held=HELD)


def metrics(service: Service) -> dict[str, float]:
    """'name{label=value}' -> value, read by the library of those who scrape."""
    answer = ask(build_app(service), "GET", "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation for family in families)
    return {
        sample.name + "".join(f"{{{label}={value}}}" for label, value in sample.labels.items()): sample.value
        for family in families
        for sample in family.samples
    }


def test_counters_are_the_sums_of_what_answers_said(service: Service) -> None:
    before = metrics(service)
    app = build_app(service)
    bodies: list[dict[str, Any]] = [
        {"prompt": "one", "max_tokens": 3},
        {"prompt": ["two", "three"], "n": 2, "max_tokens": 5, "stream": False},
        {"prompt": "one", "max_tokens": 4},
    ]
    answers = [ask(app, "POST", "/v1/completions", json=body).json() for body in bodies]
    grown = {name: value - before.get(name, 0) for name, value in metrics(service).items()}
    assert grown["thermocline_tokens_written_total"] == sum(answer["usage"]["completion_tokens"] for answer in answers) == 27
    read, cached = sum(answer["timings"]["prompt_n"] for answer in answers), sum(answer["timings"]["cache_n"] for answer in answers)
    assert grown["thermocline_prompt_tokens_total"] == read
    assert grown["thermocline_prompt_tokens_cached_total"] == cached > 0
    assert grown["thermocline_choices_finished_total{reason=length}"] == 6
    assert grown["thermocline_choices_finished_total{reason=failed}"] == 0
    steps, sides = ["prompt", "decode"], ["cpu", "waiting"]
    in_steps = sum(grown[f"thermocline_step_seconds_total{{kind={kind}}}"] for kind in steps)
    assert sum(grown[f"thermocline_side_seconds_total{{side={side}}}"] for side in sides) == pytest.approx(in_steps)


def test_the_plan_stands_beside_what_is_measured(service: Service) -> None:
    ask(build_app(service), "POST", "/v1/completions", json={"prompt": "x", "max_tokens": 3})
    found, shown = metrics(service), ask(build_app(service), "GET", "/props").json()
    assert found["thermocline_sequence_tokens_per_second{source=planned}"] == 42.0
    assert found["thermocline_sequence_tokens_per_second{source=measured}"] > 0
    assert found["thermocline_hot_neurons{source=measured}"] == 7
    placement = shown["placement"]
    assert placement["planned"] is None
    assert placement["measured"]["hot_neurons"] == [2, 1, 0, 4]
    assert placement["measured"]["tokens_per_second"] > 0
    assert placement["measured"]["seconds"]["cpu"] > 0
    assert placement["measured"]["vram_bytes"] is None
    assert placement["measured"]["ram_bytes"].items() >= {"spine": 100, "KV cache": 10, "cold neurons": 70}.items()
    assert placement["measured"]["ram_bytes"]["in all"] > 10**7
    assert (shown["model"], shown["context"], shown["total_slots"], shown["chat"]) == ("fake", 64, 3, False)
    assert shown["device"] == "cpu"
    assert shown["cache"]["prompt_tokens"] == found["thermocline_prompt_tokens_total"]


def test_the_share_that_the_gpu_serves_stands_in_both(tokenizer: Tokenizer) -> None:
    """Of firings that were counted; before any there is none to tell, and where no neuron is hot it is 0."""
    with running_service(tokenizer, MemoryModel(), slots=3) as service:
        for held, numbers, share in (
            (HELD, Numbers(fired_hot=30, fired_cold=10), 0.75),
            (HELD, Numbers(), None),
            (replace(HELD, hot=(0, 0, 0, 0)), Numbers(), 0.0),
        ):
            service.bridge._engine.numbers = numbers
            told = replace(service, held=held)
            assert ask(build_app(told), "GET", "/props").json()["placement"]["measured"]["hot_share"] == share
            assert metrics(told).get("thermocline_hot_share{source=measured}") == share
            assert metrics(told)["thermocline_firings_counted_total{side=gpu}"] == numbers.fired_hot


def test_every_line_of_a_plan_with_a_gpu_stands_beside_what_was_measured(tokenizer: Tokenizer) -> None:
    """In /props and, by the same words, in /metrics; a step's seconds are those of steps that write, as the plan's are."""
    plan = plan_for(SPEC, 300)
    assert plan.vram is not None
    held = Held("card", 100, 30, 70, 10, hot=tuple(plan.hot), mask_bytes=3)
    numbers = Numbers(prompt_steps=1, prompt_seconds=99.0, waiting_seconds=60.0, gpu_seconds=70.0)
    numbers = replace(numbers, decode_steps=4, decode_seconds=2.0, decode_waiting_seconds=0.5, decode_gpu_seconds=1.0)
    with running_service(tokenizer, MemoryModel()) as service:
        service.bridge._engine.numbers = numbers
        told = replace(service, held=held, plan=plan, expected_per_second=plan.expected.tokens_per_second)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MemoryNow, "look", lambda: MemoryNow(5000, 400, 500))
            shown, found = ask(build_app(told), "GET", "/props").json()["placement"], metrics(told)
    planned, measured = shown["planned"], shown["measured"]
    assert planned["vram_bytes"].keys() == {*(line.name for line in plan.vram.lines), "in all", "limit"}
    assert measured["vram_bytes"] == {"spine": 100, "KV cache": 10, "hot neurons": 30, "predictors": 3, "in all": 400}
    assert measured["vram_bytes"].keys() <= planned["vram_bytes"].keys() | {"predictors"}
    assert measured["ram_bytes"] == {"cold neurons": 70, "in all": 5000}
    assert measured["hot_neurons"] == planned["hot_neurons"] == plan.hot_of_layer
    assert measured["seconds"] == {"gpu": 0.25, "cpu": 0.375, "waiting": 0.125}
    assert 1 / (planned["seconds"]["cpu"] + planned["seconds"]["waiting"]) == pytest.approx(planned["tokens_per_second"])
    assert planned["hot_share"] == plan.served_in_all > 0
    for source, side in shown.items():
        for memory in ("ram", "vram"):
            for kind, size in side[f"{memory}_bytes"].items():
                assert found[f"thermocline_{memory}_spent_bytes{{kind={kind}}}{{source={source}}}"] == size
        for name, seconds in side["seconds"].items():
            assert found[f"thermocline_decode_step_seconds{{side={name}}}{{source={source}}}"] == pytest.approx(seconds)
        assert found[f"thermocline_hot_neurons{{source={source}}}"] == sum(side["hot_neurons"])
    assert found["thermocline_hot_share{source=planned}"] == plan.served_in_all
    assert found["thermocline_sequence_tokens_per_second{source=planned}"] == pytest.approx(planned["tokens_per_second"])


def test_predictors_stand_among_the_bytes(service: Service) -> None:
    told = replace(service, held=replace(HELD, predictor_bytes=5))
    assert ask(build_app(told), "GET", "/props").json()["placement"]["measured"]["ram_bytes"]["predictors"] == 5


def test_busy_slots_and_the_queue_are_seen_and_go_back_to_nothing(tokenizer: Tokenizer) -> None:
    model = GatedModel()

    async def story(service: Service) -> tuple[dict[str, Any], dict[str, Any]]:
        async with client_of(build_app(service)) as client:
            taken = [asyncio.create_task(client.post("/v1/completions", json={"prompt": "x", "max_tokens": 2})) for _ in range(3)]
            await asyncio.to_thread(model.entered.acquire)
            while (await client.get("/health")).json()["unfinished"] < 3:
                pass
            model.gate.release()
            await asyncio.to_thread(model.entered.acquire)  # a step after all three have come
            during = await slots(client)
            model.gate.release(1000)
            await asyncio.gather(*taken)
            return during, await slots(client)

    async def slots(client: httpx.AsyncClient) -> dict[str, Any]:
        found: dict[str, Any] = (await client.get("/props")).json()["slots"]
        return found

    with running_service(tokenizer, model, slots=1, queue_size=4) as service:
        during, after = asyncio.run(story(service))
    assert during == {"total": 1, "busy": 1, "waiting": 2, "unfinished": 3}
    assert after == {"total": 1, "busy": 0, "waiting": 0, "unfinished": 0}
