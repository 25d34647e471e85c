"""The `openai` client against the running server and the bundled model: what it gets, and what it does when it gets nothing."""

import asyncio
import json
from typing import Any

import jsonschema_rs
import openai
import pytest
from transformers import PreTrainedTokenizerFast

from models.paths import BUNDLED_MODEL
from models.tokenizer import Tokenizer
from tests.conformance.serving import CHATML, Independent, Running

pytestmark = pytest.mark.slow

PROMPT = "import os\n\ndef walk(path):\n"
MESSAGES: Any = [{"role": "user", "content": "import os"}]
MARGIN = 2e-2  # of a log probability: our keys and values are kept in bfloat16 (5e-3 measured)


def text_of(tokens: Tokenizer, prompt: str, ids: list[int]) -> str:
    whole = tokens.encode(prompt)
    return tokens.decode(whole + ids)[len(tokens.decode(whole)) :]


def test_a_completion_is_what_an_independent_model_writes(client: openai.OpenAI, independent: Independent, tokens: Tokenizer) -> None:
    answer = client.completions.create(model="bundled", prompt=PROMPT, max_tokens=24, temperature=0)
    assert answer.choices[0].text == text_of(tokens, PROMPT, independent.greedy(tokens.encode(PROMPT), 24))
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(tokens.encode(PROMPT)), 24)


def test_a_chat_is_what_an_independent_model_writes_after_an_independent_template(client: openai.OpenAI, independent: Independent) -> None:
    theirs = PreTrainedTokenizerFast.from_pretrained(BUNDLED_MODEL, chat_template=CHATML.read_text())
    rendered = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    ids = [0, *theirs(rendered, add_special_tokens=False)["input_ids"]]
    wanted = independent.greedy(ids, 12)
    answer = client.chat.completions.create(model="bundled", messages=MESSAGES, max_tokens=12, temperature=0)
    assert answer.choices[0].message.content == theirs.decode(ids + wanted)[len(theirs.decode(ids)) :]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(ids)
    stream = client.chat.completions.create(model="bundled", messages=MESSAGES, max_tokens=12, temperature=0, stream=True)
    parts = [chunk.choices[0] for chunk in stream]
    assert "".join(part.delta.content or "" for part in parts) == answer.choices[0].message.content
    assert [part.finish_reason for part in parts] == [None] * (len(parts) - 1) + ["length"]


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("max_tokens", [0, 1, 3])
def test_the_scores_of_an_echoed_prompt_are_the_models_own(
    client: openai.OpenAI, independent: Independent, tokens: Tokenizer, ids: bool, max_tokens: int
) -> None:
    own = tokens.encode(PROMPT)
    answer = client.completions.create(
        model="bundled", prompt=own if ids else PROMPT, max_tokens=max_tokens, temperature=0, echo=True, logprobs=1
    )
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.token_logprobs is not None
    assert found.token_logprobs[0] is None
    assert answer.choices[0].text.startswith(PROMPT)
    assert "".join(found.tokens or []) == answer.choices[0].text
    whole = own + independent.greedy(own, max_tokens)
    assert found.token_logprobs[1:] == pytest.approx(independent.logprobs(whole).tolist(), abs=MARGIN)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("logprobs", [None, 5])
@pytest.mark.parametrize("echo", [False, True])
def test_the_matrix(
    client: openai.OpenAI, tokens: Tokenizer, echo: bool, logprobs: int | None, many: bool, n: int, ids: bool, stream: bool
) -> None:
    """Every combination, with tokens longer than a byte: choices, echo, scores that join to the text, and what is counted."""
    one: Any = tokens.encode(PROMPT) if ids else PROMPT
    count = len(tokens.encode(PROMPT))
    asked: Any = {"model": "bundled", "prompt": [one, one] if many else one, "max_tokens": 6, "seed": 7}
    asked |= {"echo": echo, "logprobs": logprobs, "n": n}
    usage_too: Any = {"stream": True, "stream_options": {"include_usage": True}}
    parts = list(client.completions.create(**asked, **usage_too)) if stream else [client.completions.create(**asked)]
    choices = n * (2 if many else 1)
    texts, scored, offsets, finishes = [""] * choices, [0] * choices, [[] for _ in range(choices)], list[str]()  # type: ignore[var-annotated]
    for choice in (choice for part in parts for choice in part.choices):
        if choice.logprobs is not None:
            assert "".join(choice.logprobs.tokens or []) == choice.text
            scored[choice.index] += len(choice.logprobs.token_logprobs or [])
            offsets[choice.index] += choice.logprobs.text_offset or []
        texts[choice.index] += choice.text
        finishes += [choice.finish_reason] if choice.finish_reason else []
    usage = parts[-1].usage
    assert usage is not None
    assert usage.prompt_tokens == count * (2 if many else 1)
    assert usage.completion_tokens == 6 * choices
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert finishes == ["length"] * choices
    assert all(text.startswith(PROMPT) == echo for text in texts)
    assert len(set(texts)) == n
    assert scored == [0 if logprobs is None else 6 + (count if echo else 0)] * choices
    assert all(places == sorted(places) for places in offsets)


def test_the_same_prompt_again_is_not_read_again(client: openai.OpenAI, server: Running) -> None:
    prompt = "# a prompt nobody else has\n" + "x = [1, 2, 3]\n" * 12
    first, second = (client.completions.create(model="bundled", prompt=prompt, max_tokens=4, temperature=0) for _ in range(2))
    assert first.choices[0].text == second.choices[0].text
    cold, warm = (answer.model_extra["timings"] for answer in (first, second) if answer.model_extra)
    assert first.usage is not None
    assert cold["prompt_n"] + cold["cache_n"] == warm["prompt_n"] + warm["cache_n"] == first.usage.prompt_tokens
    assert warm["cache_n"] > 0.9 * first.usage.prompt_tokens
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    assert server.get("/props")["cache"]["cached_tokens"] >= warm["cache_n"]
    longer = client.completions.create(model="bundled", prompt=prompt + first.choices[0].text + "\ny", max_tokens=1)
    assert longer.model_extra is not None
    assert longer.model_extra["timings"]["cache_n"] >= first.usage.prompt_tokens


def test_many_at_once_say_what_each_says_alone(client: openai.OpenAI) -> None:
    prompts = [f"def f{number}(x):\n    return" for number in range(4)]
    alone = [client.completions.create(model="bundled", prompt=prompt, max_tokens=16, temperature=0).choices[0].text for prompt in prompts]

    async def together() -> list[str]:
        async with openai.AsyncOpenAI(base_url=str(client.base_url), api_key="none", max_retries=8) as own:
            asked = [own.completions.create(model="bundled", prompt=prompt, max_tokens=16, temperature=0) for prompt in prompts]
            return [answer.choices[0].text for answer in await asyncio.gather(*asked)]

    assert asyncio.run(together()) == alone


def test_a_client_that_runs_out_of_patience_leaves_no_slot_behind(client: openai.OpenAI, server: Running) -> None:
    hasty = client.with_options(timeout=0.05, max_retries=0)
    endless: Any = {"prompt": ["x"] * 2, "max_tokens": 500, "extra_body": {"ignore_eos": True}}
    for _ in range(2):  # no stream: its pieces come faster than anybody's patience ends
        with pytest.raises(openai.APITimeoutError):
            hasty.completions.create(model="bundled", **endless)
    server.until_idle()
    assert client.completions.create(model="bundled", prompt=PROMPT, max_tokens=1).choices[0].finish_reason == "length"


def test_streams_that_are_cut_leave_no_slot_behind(client: openai.OpenAI, server: Running) -> None:
    for _ in range(25):
        with client.completions.create(model="bundled", prompt="x", max_tokens=500, extra_body={"ignore_eos": True}, stream=True) as stream:
            next(iter(stream))
        server.until_idle()
    assert server.get("/props")["slots"] == {"total": 2, "busy": 0, "waiting": 0, "unfinished": 0}


def test_a_full_queue_is_tried_again_and_a_mistake_is_not(client: openai.OpenAI, server: Running) -> None:
    """Two slots and a queue of two: a fifth request is told to come back, and the client does."""

    async def story() -> tuple[str | None, int]:
        async with openai.AsyncOpenAI(base_url=str(client.base_url), api_key="none", max_retries=0) as own:
            body: Any = {"model": "bundled", "prompt": "x", "max_tokens": 500, "extra_body": {"ignore_eos": True}}
            busy = [asyncio.create_task(own.completions.create(**body)) for _ in range(4)]
            while (await asyncio.to_thread(server.get, "/health"))["unfinished"] < 4:
                pass
            with pytest.raises(openai.InternalServerError) as refused:
                await own.completions.create(**body)
            patient = own.with_options(max_retries=20)
            answer = await patient.completions.create(model="bundled", prompt=PROMPT, max_tokens=1)
            await asyncio.gather(*busy)
            assert refused.value.response.headers["retry-after"] == "2"
            return refused.value.code, answer.usage.completion_tokens if answer.usage else 0

    assert asyncio.run(story()) == ("queue_full", 1)
    seen = server.get("/props")["cache"]["prompt_tokens"]
    with pytest.raises(openai.BadRequestError, match="prompt: must be a string"):
        client.with_options(max_retries=5).completions.create(model="bundled", prompt=5)  # type: ignore[call-overload]
    assert server.get("/props")["cache"]["prompt_tokens"] == seen


def test_an_answer_follows_a_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "lines": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "lines"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "file", "schema": schema}}
    for seed in range(4):
        answer = client.chat.completions.create(model="bundled", messages=MESSAGES, response_format=form, seed=seed, max_tokens=400)
        assert answer.choices[0].finish_reason == "stop"
        jsonschema_rs.validate(schema, json.loads(answer.choices[0].message.content or ""))


def test_the_openai_document_and_the_models_answer(client: openai.OpenAI, server: Running) -> None:
    assert [model.id for model in client.models.list()] == ["bundled"]
    assert client.models.retrieve("bundled").model_extra == {"max_model_len": 512}
    measured = server.get("/props")["placement"]
    assert measured["measured"]["hot_neurons"] == measured["planned"]["hot_neurons"] == [0] * 6
    assert measured["measured"]["tokens_per_second"] > 0
    for name in ("spine", "KV cache", "cold neurons"):
        assert measured["measured"]["ram_bytes"][name] == measured["planned"]["ram_bytes"][name]
