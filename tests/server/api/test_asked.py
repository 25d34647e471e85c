"""From the fields of a request to what the engine is told: every one arrives, and under its own name."""

from typing import Any

import pytest

from models.tokenizer import Tokenizer
from server.api.asked import read_params
from server.api.chat_schemas import ChatRequest
from server.api.sampling_fields import SamplingFields
from server.api.schemas import CompletionRequest
from server.sequence import Params
from tests.server.fakes import EOS, MemoryModel, running_service

MESSAGES: Any = [{"role": "user", "content": "x"}]
COMMON: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.6,
    "top_k": 7,
    "min_p": 0.08,
    "presence_penalty": 0.9,
    "frequency_penalty": -1.1,
    "repetition_penalty": 1.2,
    "logit_bias": {"13": 1.4},
    "stop_token_ids": [15],
    "user": "me",
    "seed": 16,
}
TOLD: dict[str, Any] = {name: COMMON[name] for name in list(COMMON)[:7]} | {"logit_bias": ((13, 1.4),)}


def told(tokenizer: Tokenizer, body: SamplingFields) -> Params:
    with running_service(tokenizer, MemoryModel()) as service:
        return read_params(body, 18, service)


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_every_field_of_a_completion_arrives(tokenizer: Tokenizer, ignore_eos: bool) -> None:
    body = CompletionRequest.model_validate({"prompt": "x", "logprobs": 3, "echo": True, "ignore_eos": ignore_eos} | COMMON)
    stops = frozenset({15} if ignore_eos else {15, EOS})
    assert told(tokenizer, body) == Params(max_tokens=18, stop_ids=stops, logprobs=3, score_prompt=True, **TOLD)


def test_every_field_of_a_chat_arrives(tokenizer: Tokenizer) -> None:
    body = ChatRequest.model_validate({"messages": MESSAGES, "logprobs": True, "top_logprobs": 4} | COMMON)
    assert told(tokenizer, body) == Params(max_tokens=18, stop_ids=frozenset({15, EOS}), logprobs=4, **TOLD)


@pytest.mark.parametrize("body", [CompletionRequest(prompt="x"), ChatRequest.model_validate({"messages": MESSAGES})])
def test_without_any_the_models_own_distribution_is_drawn_from(tokenizer: Tokenizer, body: SamplingFields) -> None:
    assert told(tokenizer, body) == Params(max_tokens=18, stop_ids=frozenset({EOS}))


def test_the_best_of_several_are_found_by_scores_that_nobody_sees(tokenizer: Tokenizer) -> None:
    assert told(tokenizer, CompletionRequest(prompt="x", n=1, best_of=2)).logprobs == 0
    assert told(tokenizer, CompletionRequest(prompt="x", n=2, best_of=2)).logprobs is None


def test_a_chat_without_top_logprobs_names_no_others(tokenizer: Tokenizer) -> None:
    assert told(tokenizer, ChatRequest.model_validate({"messages": MESSAGES, "logprobs": True})).logprobs == 0
