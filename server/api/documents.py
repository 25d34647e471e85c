"""Answers as the OpenAPI document describes them. They are made elsewhere; the tests hold both against each other."""

from typing import Any, Literal

from pydantic import BaseModel

Finish = Literal["stop", "length"]  # who cancels is gone, and reads nothing


class ErrorInside(BaseModel):
    message: str
    type: Literal["invalid_request_error", "authentication_error", "overloaded_error", "server_error"]
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The one shape of all errors."""

    error: ErrorInside


class PromptDetails(BaseModel):
    cached_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class TimingsAnswer(BaseModel):
    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float
    expected_per_second: float | None


class LegacyLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(BaseModel):
    index: int
    text: str
    logprobs: LegacyLogprobs | None
    finish_reason: Finish | None


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    timings: TimingsAnswer


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    content: list[ChatLogprob]
    refusal: None


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish | None


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    timings: TimingsAnswer


class ModelAnswer(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelAnswer]


class HealthAnswer(BaseModel):
    status: Literal["ok"]
    unfinished: int


class LayoutEvent(BaseModel):
    """`neurons` of a bank; `hot`: how many of them the GPU serves, by bank; column c holds a bank's neurons edges[c] … edges[c + 1]."""

    type: Literal["layout"]
    layers: int
    experts: int
    neurons: int
    edges: list[int]
    hot: list[int]


class FiringEvent(BaseModel):
    """One watched step. `cells`: base64 of a byte for each bank and column, bank by bank; 255 where all neurons fired for all tokens."""

    type: Literal["firing"]
    tokens: int
    fired_gpu: int
    fired_cpu: int
    cells: str


Document = dict[str, Any]
STREAM_CONTENT: Document = {"text/event-stream": {"schema": {"description": "With `stream`: events of `data: {…}`, then `data: [DONE]`."}}}
COMPLETION: Document = {"model": Completion, "content": STREAM_CONTENT}
CHAT: Document = {"model": ChatCompletion, "content": STREAM_CONTENT}
MAP_EVENTS: Document = {
    "description": "Events of `data: {…}`, one of these each: the layout, then what fires.",
    "oneOf": [LayoutEvent.model_json_schema(), FiringEvent.model_json_schema()],
}
MAP: Document = {"content": {"text/event-stream": {"schema": MAP_EVENTS}}}
ERRORS: dict[int | str, Document] = {
    "4XX": {"model": ErrorAnswer, "description": "A mistake of the request"},
    "5XX": {"model": ErrorAnswer, "description": "The server is busy, stopping, or has failed"},
}
