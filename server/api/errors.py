"""Every error leaves in one shape, {"error": {"message", "type", "param", "code"}}, and one table says with which status.

A mistake of the client is never a 5xx, because clients send those again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from server.bridge import Closed, EngineLost, QueueFull
from server.engine import StepFailed
from server.guide import GuideFailed
from server.watching import TooManyWatchers

RETRY = {"retry-after": "2"}  # seconds


class BadRequest(Exception):
    """A field with a value we do not accept."""

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"{param}: {why}")
        self.param = param


class ContextOverflow(Exception):
    """A prompt that does not fit."""

    def __init__(self, param: str, prompt_tokens: int, context: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens, which exceeds the available context size of {context} tokens "
            "(at least one must be left to write)"
        )
        self.param = param
        self.prompt_tokens, self.context = prompt_tokens, context


class UnknownModel(Exception):
    def __init__(self, asked: str, served: str) -> None:
        super().__init__(f"the model {asked!r} does not exist; this server has {served!r}")
        self.param = "model"


class NoChatTemplate(Exception):
    def __init__(self, model: str) -> None:
        super().__init__(f"the model {model!r} has no chat template; start the server with --chat-template FILE, or use /v1/completions")


class Loading(Exception):
    def __init__(self) -> None:
        super().__init__("the model is loading; try again soon")


class Unauthorized(Exception):
    def __init__(self) -> None:
        super().__init__("this server wants an API key: send it as 'Authorization: Bearer KEY'")


class UnknownHost(Exception):
    def __init__(self, asked: str) -> None:
        super().__init__(f"this server does not answer to the host {asked[:100]!r}; start it with --allow-host NAME if it should")


class NotAllowed(Exception):
    def __init__(self, what: str) -> None:
        super().__init__(f"a page of another origin may not ask this ({what}); --cors-origin names those that may, with GET and POST")


class TooSlow(Exception):
    def __init__(self, limit_seconds: float) -> None:
        super().__init__(f"the body did not come within {limit_seconds:g} seconds")


class TooManyHeaders(Exception):
    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the headers are larger than {limit_bytes} bytes")


class TooLarge(Exception):
    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is larger than {limit_bytes} bytes")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    type: str
    code: str | None = None
    headers: Mapping[str, str] | None = None


TABLE: dict[type[Exception], Answer] = {
    BadRequest: Answer(400, "invalid_request_error"),
    ContextOverflow: Answer(400, "invalid_request_error", "context_length_exceeded"),
    UnknownModel: Answer(404, "invalid_request_error", "model_not_found"),
    NoChatTemplate: Answer(400, "invalid_request_error", "no_chat_template"),
    GuideFailed: Answer(400, "invalid_request_error", "grammar_failed"),
    Unauthorized: Answer(401, "authentication_error", "invalid_api_key", {"www-authenticate": "Bearer"}),
    NotAllowed: Answer(400, "invalid_request_error", "cors_refused"),
    UnknownHost: Answer(403, "invalid_request_error", "host_not_allowed"),
    TooSlow: Answer(408, "invalid_request_error", "request_timeout"),
    TooManyHeaders: Answer(431, "invalid_request_error", "headers_too_large"),
    TooLarge: Answer(413, "invalid_request_error", "body_too_large"),
    QueueFull: Answer(503, "overloaded_error", "queue_full", RETRY),
    TooManyWatchers: Answer(503, "overloaded_error", "too_many_watchers", RETRY),
    Loading: Answer(503, "overloaded_error", "loading", RETRY),
    Closed: Answer(503, "overloaded_error", "shutting_down", RETRY),
    EngineLost: Answer(503, "server_error", "engine_stopped", RETRY),
    StepFailed: Answer(500, "server_error", "step_failed"),
}
WORDS = {  # by pydantic's names of what can be wrong, where its own words speak of Python
    "missing": "is missing",
    "model_attributes_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "union_tag_not_found": "has no type",
    "union_tag_invalid": "has the unknown type {tag}; there are {expected_tags}",
}
STATUS_CODES = {404: "not_found", 405: "method_not_allowed"}


def error_body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def body_of(error: Exception) -> dict[str, Any]:
    """The JSON of one of the exceptions in the table."""
    answer = TABLE[type(error)]
    return error_body(str(error), answer.type, getattr(error, "param", None), answer.code)


def response_of(error: Exception) -> JSONResponse:
    answer = TABLE[type(error)]
    return JSONResponse(body_of(error), answer.status, answer.headers)


def install(app: FastAPI) -> None:
    """Gives `app` the table, and our shape for what FastAPI and Starlette raise by themselves."""
    for kind in TABLE:
        app.add_exception_handler(kind, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)


async def _known(request: Request, error: Exception) -> JSONResponse:
    return response_of(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's 422 is a 400 here."""
    assert isinstance(error, RequestValidationError)
    param, message = complaint(error.errors())
    return JSONResponse(error_body(message, "invalid_request_error", param, None), 400)


async def _http(request: Request, error: Exception) -> JSONResponse:
    """An unknown route, a method that is not allowed, a body that cannot be parsed."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    body = error_body(message, "invalid_request_error", None, STATUS_CODES.get(error.status_code))
    return JSONResponse(body, error.status_code, error.headers)


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(error_body("the server made a mistake; its log says more", "server_error", None, "internal_error"), 500)


def complaint(errors: Sequence[Any]) -> tuple[str | None, str]:
    """(field, 'field: what is wrong with it') of the first complaint."""
    first = errors[0]
    path = path_of(first["loc"][1:])
    if first["type"] == "json_invalid":
        return None, f"the body is not JSON: {first['ctx']['error']}"
    if not path and first["type"] != "value_error":
        return None, "the body must be a JSON object, with content-type application/json"
    if first["type"] == "extra_forbidden":
        return path[0], f"{'.'.join(path)}: unknown field"
    ours = WORDS.get(first["type"])
    words = ours.format(**first.get("ctx", {})) if ours else first["msg"].removeprefix("Value error, ")  # pydantic's words around ours
    return (path[0], f"{'.'.join(path)}: {words}") if path else (None, f"the body {words}")


def path_of(places: Sequence[object]) -> list[str]:
    """As a client wrote it: pydantic also names what kind of a thing it tried, by a tag that the next name repeats, or by a type."""
    path = [str(place) for place in places if "[" not in str(place)]
    return [name for name, before in zip(path, [None, *path], strict=False) if name != before]
