"""What the fields of requests may hold, strictly: nothing is converted, unknown fields are refused. Knows no model and no route."""

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

MOST_CHOICES = 128
MOST_LOGPROBS = 20
MOST_FIELDS = 64  # of one object
MOST_IDS = 1 << 20  # of one text; no model has such a context
FIRST = Field(fail_fast=True)  # of a list's complaints, one is enough: a million take a second in which nobody else is served
SURROGATE = re.compile("[\ud800-\udfff]")
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def one_message(message: str) -> WrapValidator:
    """A union's complaints, one per member, are no help: this one instead."""

    def checked(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(message) from None

    return WrapValidator(checked)


def refused(why: str) -> Callable[[object], None]:
    """Of a field that exists elsewhere and not here: only null is let through."""

    def check(value: object) -> None:
        if value is not None:
            raise ValueError(why)

    return check


def whole(value: str) -> str:
    """JSON can spell halves of UTF-16 characters, which no text can hold."""
    if SURROGATE.search(value):
        raise ValueError("has half a character (a lone surrogate)")
    return value


def biases(value: dict[str, float]) -> dict[str, float]:
    for key, bias in value.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise ValueError(f"the key {key[:20]!r} is not a token id")
        if not -100 <= bias <= 100:
            raise ValueError(f"the bias of token {key} is not between -100 and 100")
    return value


class Strict(BaseModel):
    """An object of a request. One of very many fields is refused before each of them gets a complaint of its own."""

    model_config = STRICT

    @model_validator(mode="before")
    @classmethod
    def _is_small(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MOST_FIELDS:
            raise ValueError(f"has more than {MOST_FIELDS} fields")
        return value


TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Text = Annotated[str, AfterValidator(whole)]
StopText = Annotated[Text, Field(min_length=1, max_length=256)]
StopField = Annotated[
    StopText | Annotated[list[StopText], Field(max_length=16)] | None,
    one_message("must be a string of 1 to 256 characters, or a list of at most 16 of them"),
]
BiasField = Annotated[dict[str, float], Field(max_length=1024), AfterValidator(biases)]


def refusing(why: str) -> Any:
    """The type of a field that is refused with a reason; the document says that only null is taken."""
    return Annotated[Any, AfterValidator(refused(why)), WithJsonSchema({"type": "null", "description": f"Refused: {why}."})]


class StreamOptions(Strict):
    include_usage: bool | None = False
