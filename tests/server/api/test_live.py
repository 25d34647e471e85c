"""The real `openai` client against a live server on an ephemeral port of the loopback."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from models.tokenizer import Tokenizer
from tests.server.api.live import live_server
from tests.server.fakes import MemoryModel, greedy, running_service

BROKEN = 7  # a prompt with this byte makes the model raise


@pytest.fixture(scope="module")
def url(tokenizer: Tokenizer) -> Iterator[str]:
    model = MemoryModel(broken_token=BROKEN)
    with running_service(tokenizer, model, slots=3, queue_size=20, context=20_000) as service, live_server(service) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def written(prompt: str, count: int) -> str:
    return bytes(greedy(list(prompt.encode()), count)).decode()


def test_a_completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="fake", prompt="hello", max_tokens=5, temperature=0)
    assert answer.object == "text_completion"
    assert answer.model == "fake"
    assert answer.choices[0].text == written("hello", 5)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 5, 10)


def test_the_default_is_sixteen_tokens(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="fake", prompt="hello")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_timings_are_finite_and_name_what_was_expected(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="fake", prompt="hello", max_tokens=1)
    timings = answer.model_extra["timings"] if answer.model_extra else {}
    assert timings["prompt_n"] + timings["cache_n"] == 5
    assert timings["prompt_n"] >= 1
    assert timings["predicted_n"] == 1
    assert timings["predicted_per_second"] == 0.0
    assert timings["expected_per_second"] == 42.0
    assert timings["prompt_per_second"] > 0
    assert all(value >= 0 for value in timings.values())


def test_a_stream_says_the_same_as_one_answer(client: openai.OpenAI) -> None:
    chunks = list(client.completions.create(model="fake", prompt="hello", max_tokens=9, temperature=0, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == written("hello", 9)
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["timings"]["predicted_n"] == 9


def test_usage_comes_last_and_only_when_asked_for(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(model="fake", prompt="hello", max_tokens=3, stream=True, stream_options={"include_usage": True})
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert all(chunk.usage is None for chunk in chunks[:-1])
    without = list(client.completions.create(model="fake", prompt="hello", max_tokens=3, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in without)


def lists(count: int) -> list[list[Any]]:
    return [[] for _ in range(count)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("logprobs", [None, 0, 5])
@pytest.mark.parametrize("echo", [False, True])
def test_the_matrix(client: openai.OpenAI, echo: bool, logprobs: int | None, many: bool, n: int, ids: bool, stream: bool) -> None:
    """Number of choices, echo, legacy log probabilities, and usage, in every combination."""
    text, as_ids = "The sea", list(b"The sea")
    prompt = ([as_ids] * 2 if many else as_ids) if ids else ([text] * 2 if many else text)
    choices = 2 * n if many else n
    texts, tokens, offsets, scores, tops = (lists(choices) for _ in range(5))
    finished = []
    if stream:
        parts = list(
            client.completions.create(
                model="fake", prompt=prompt, max_tokens=4, echo=echo, logprobs=logprobs, n=n, seed=3,
                stream=True, stream_options={"include_usage": True},
            )
        )  # fmt: skip
    else:
        parts = [client.completions.create(model="fake", prompt=prompt, max_tokens=4, echo=echo, logprobs=logprobs, n=n, seed=3)]
    for choice in (choice for part in parts for choice in part.choices):
        texts[choice.index].append(choice.text)
        finished += [choice.finish_reason] if choice.finish_reason else []
        assert (choice.logprobs is None) == (logprobs is None)
        if choice.logprobs:
            tokens[choice.index] += choice.logprobs.tokens or []
            offsets[choice.index] += choice.logprobs.text_offset or []
            scores[choice.index] += choice.logprobs.token_logprobs or []
            tops[choice.index] += choice.logprobs.top_logprobs or []
    usage = parts[-1].usage
    assert usage is not None
    assert usage.prompt_tokens == 7 * (2 if many else 1)
    assert usage.completion_tokens == 4 * choices
    assert finished == ["length"] * choices
    for index in range(choices):
        whole = "".join(texts[index])
        assert whole.startswith("The sea") == echo
        assert len(whole) == (11 if echo else 4)
        if logprobs is not None:
            assert "".join(tokens[index]) == whole
            assert offsets[index] == list(range(len(whole)))
            assert (scores[index][0] is None) == echo
            assert all(score <= 0 for score in scores[index][1:])
            assert all(max(1, logprobs) <= len(top) <= logprobs + 1 for top in tops[index][1:])
            assert all(score in top.values() for score, top in zip(scores[index][1:], tops[index][1:], strict=True))


def test_scoring_a_prompt_writes_nothing(client: openai.OpenAI) -> None:
    """What evaluation harnesses ask."""
    answer = client.completions.create(model="fake", prompt="score me", max_tokens=0, echo=True, logprobs=1)
    choice = answer.choices[0]
    assert choice.text == "score me"
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == list("score me")
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    assert len(choice.logprobs.token_logprobs) == 8
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0


def test_the_best_of_several_are_shown(client: openai.OpenAI) -> None:
    """The same seed without best_of shows all candidates: the shown ones must be the likeliest of them."""
    tries = client.completions.create(model="fake", prompt="x", max_tokens=3, n=5, seed=1, logprobs=0)
    means = {choice.text: sum(choice.logprobs.token_logprobs or []) for choice in tries.choices if choice.logprobs}
    best = client.completions.create(model="fake", prompt="x", max_tokens=3, n=2, best_of=5, seed=1)
    assert [choice.text for choice in best.choices] == sorted(means, key=lambda text: -means[text])[:2]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.choices[0].logprobs is None
    assert best.usage is not None
    assert best.usage.completion_tokens == 15


def test_choices_differ_and_a_seed_repeats_them(client: openai.OpenAI) -> None:
    def texts() -> list[str]:
        return [choice.text for choice in client.completions.create(model="fake", prompt="x", max_tokens=8, n=3, seed=5).choices]

    assert len(set(texts())) == 3
    assert texts() == texts()


def streamed(client: openai.OpenAI, **asked: Any) -> tuple[list[str], str | None]:
    """The texts of a stream's events, and why it ended."""
    chunks = [chunk.choices[0] for chunk in client.completions.create(model="fake", stream=True, **asked)]
    return [chunk.text for chunk in chunks], chunks[-1].finish_reason


def test_stop_strings_and_ids(client: openai.OpenAI) -> None:
    """Streamed too: no event has the beginning of what is taken off."""
    whole = written("hello", 10)
    extra: dict[str, Any] = {"prompt": "hello", "max_tokens": 10, "temperature": 0}
    for stop in (whole[3:5], [whole[3:5]], ["nowhere", whole[2:6]]):
        cut = whole[: min(whole.index(one) for one in ([stop] if isinstance(stop, str) else stop) if one in whole)]
        answer = client.completions.create(model="fake", stop=stop, **extra)
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == (cut, "stop")
        texts, finish = streamed(client, stop=stop, **extra)
        assert ("".join(texts), finish) == (cut, "stop")
    by_id = client.completions.create(model="fake", extra_body={"stop_token_ids": [ord(whole[3])]}, **extra)
    assert by_id.choices[0].text == whole[: whole.index(whole[3])]
    assert by_id.choices[0].finish_reason == "stop"
    unfinished_stop = client.completions.create(model="fake", stop=whole[8:10] + "!", **extra)
    assert (unfinished_stop.choices[0].text, unfinished_stop.choices[0].finish_reason) == (whole, "length")


def test_a_bias_decides_and_ignore_eos_goes_on(client: openai.OpenAI) -> None:
    always = client.completions.create(model="fake", prompt="x", max_tokens=3, logit_bias={"90": 100})
    assert always.choices[0].text == "ZZZ"
    ended = client.completions.create(model="fake", prompt="x", max_tokens=3, logit_bias={"256": 100})
    assert (ended.choices[0].text, ended.choices[0].finish_reason) == ("", "stop")
    ignored = client.completions.create(model="fake", prompt="x", max_tokens=3, logit_bias={"256": 100}, extra_body={"ignore_eos": True})
    assert ignored.choices[0].finish_reason == "length"


def form(expression: str) -> dict[str, Any]:
    return {"response_format": {"type": "regex", "regex": expression}}


def test_half_a_character_never_leaves(client: openai.OpenAI) -> None:
    """Characters of two and of four bytes, one byte a token: an event has whole ones or none."""
    asked: dict[str, Any] = {"prompt": "x", "max_tokens": 99, "seed": 1, "extra_body": form("(ä|🌊){6}")}
    texts, finish = streamed(client, **asked)
    assert re.fullmatch("(ä|🌊){6}", "".join(texts))
    assert set(texts) <= {"", "ä", "🌊"}
    assert finish == "stop"
    cut = client.completions.create(model="fake", **asked | {"max_tokens": 9, "extra_body": form("🌊{6}")})
    assert (cut.choices[0].text, cut.choices[0].finish_reason) == ("🌊🌊\ufffd", "length")  # a text that ends there shows that it does


def test_a_stop_string_over_many_tokens_and_halves_of_characters(client: openai.OpenAI) -> None:
    """Of every choice, in a form: the text ends before it, whatever the form wants after."""
    asked: dict[str, Any] = {"prompt": "x", "max_tokens": 99, "n": 3, "seed": 1, "extra_body": form("(ä|b){3}🌊!🌊c{9}")}
    answer = client.completions.create(model="fake", stop=["🌊!🌊c"], logprobs=0, **asked)
    for choice in answer.choices:
        assert re.fullmatch("(ä|b){3}", choice.text)
        assert choice.finish_reason == "stop"
        assert choice.logprobs is not None
        assert "".join(choice.logprobs.tokens or []) == choice.text
    texts, finish = streamed(client, stop=["🌊!🌊c"], **asked | {"n": 1})
    assert ("".join(texts), finish) == (answer.choices[0].text, "stop")


def test_the_choices_of_a_prompt_read_it_once(client: openai.OpenAI) -> None:
    """All of it, to the last token."""
    several: list[dict[str, Any]] = [{"n": 3}, {"n": 1, "best_of": 3}]
    for extra in several:
        prompt = f"a prompt that nobody else has, {extra}"
        answer = client.completions.create(model="fake", prompt=prompt, max_tokens=2, **extra)
        assert answer.model_extra is not None
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == len(prompt)
        read, there = answer.model_extra["timings"]["prompt_n"], answer.model_extra["timings"]["cache_n"]
        assert read + there == 3 * len(prompt)
        assert there >= 2 * len(prompt)
        assert answer.usage.prompt_tokens_details is not None
        assert answer.usage.prompt_tokens_details.cached_tokens == there - 2 * len(prompt)


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029", "\x0b"])
def test_an_event_stays_one_line_for_whoever_splits_texts(client: openai.OpenAI, url: str, mark: str) -> None:
    """httpx ends a line at every one of these."""
    body: dict[str, Any] = {"prompt": f"a{mark}b", "echo": True, "max_tokens": 1, "temperature": 0}
    with httpx.stream("POST", f"{url}/v1/completions", json=body | {"stream": True}, verify=False) as answer:
        lines = [line for line in answer.iter_lines() if line]
    parts = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert lines[-1] == "data: [DONE]"
    assert "".join(part["choices"][0]["text"] for part in parts) == f"a{mark}b" + written(f"a{mark}b", 1)


def test_the_model_is_listed_and_another_is_not_there(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["fake"]
    assert client.models.retrieve("fake").owned_by == "thermocline"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("some/other")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="gpt-9", prompt="x")


def test_a_prompt_that_does_not_fit_is_refused_before_a_stream_begins(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=r"20001 tokens.*20000") as caught:
            client.completions.create(model="fake", prompt="x" * 20_001, stream=stream)
        assert caught.value.code == "context_length_exceeded"


def test_a_failed_step_is_a_500_and_the_next_request_works(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as caught:
            client.completions.create(model="fake", prompt=[BROKEN], stream=stream)
        assert caught.value.code == "step_failed"
        assert caught.value.request_id is not None
    assert client.completions.create(model="fake", prompt="hello", max_tokens=5, temperature=0).choices[0].text == written("hello", 5)


def test_a_step_that_fails_in_the_middle_is_an_error_event(client: openai.OpenAI) -> None:
    """The bias writes the token that breaks the next step."""
    with pytest.raises(openai.APIError, match="failed in this step"):
        list(client.completions.create(model="fake", prompt="x", logit_bias={str(BROKEN): 100}, stream=True))


def test_a_client_that_goes_away_frees_its_slot(client: openai.OpenAI, url: str) -> None:
    """Six endless streams, three slots; without cancellation these would run to 20,000 tokens each."""
    for _ in range(6):
        with client.completions.create(model="fake", prompt="x", max_tokens=19_000, stream=True) as stream:
            next(iter(stream))
    until_idle(url)


def test_a_client_that_goes_away_without_a_stream_frees_its_slot_too(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps({"prompt": "x", "max_tokens": 19_000})
    request = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(request.encode())
        while unfinished(url) == 0:
            pass
    until_idle(url)


def unfinished(url: str) -> int:
    return int(httpx.get(f"{url}/health", verify=False).json()["unfinished"])


def until_idle(url: str) -> None:
    for _ in range(3000):
        if unfinished(url) == 0:
            return
    pytest.fail("the slots are still taken")
