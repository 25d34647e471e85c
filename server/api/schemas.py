"""What a client may send to /v1/completions, strictly: nothing is converted, unknown fields are refused. Knows no model."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

MOST_LOGPROBS = 20
MOST_CHOICES = 128
SURROGATE = re.compile("[\ud800-\udfff]")
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


def _one_message(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """A union's complaints, one per member, are no help."""
    try:
        return handler(value)
    except ValidationError:
        raise ValueError("must be a string, a list of strings, a list of token ids, or a list of lists of token ids") from None


def _one_stop_message(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError:
        raise ValueError("must be a string of 1 to 256 characters, or a list of at most 16 of them") from None


def _only_none(value: object) -> None:
    if value is not None:
        raise ValueError("filling in before a suffix is not supported")


def _bias(value: dict[str, float]) -> dict[str, float]:
    for key, bias in value.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise ValueError(f"the key {key[:20]!r} is not a token id")
        if not -100 <= bias <= 100:
            raise ValueError(f"the bias of token {key} is not between -100 and 100")
    return value


def _whole(value: str) -> str:
    """JSON can spell halves of UTF-16 characters, which no text can hold."""
    if SURROGATE.search(value):
        raise ValueError("has half a character (a lone surrogate)")
    return value


Text = Annotated[str, AfterValidator(_whole)]
PromptField = Annotated[Text | list[Text] | list[TokenId] | list[list[TokenId]], WrapValidator(_one_message)]
StopText = Annotated[Text, Field(min_length=1, max_length=256)]
StopField = Annotated[StopText | Annotated[list[StopText], Field(max_length=16)] | None, WrapValidator(_one_stop_message)]


class StreamOptions(BaseModel):
    model_config = STRICT
    include_usage: bool = False


class CompletionRequest(BaseModel):
    """Fields as OpenAI's legacy completions have them, and the usual extensions of local servers."""

    model_config = STRICT
    prompt: PromptField
    model: Text | None = None
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = 16
    temperature: Annotated[float, Field(ge=0, le=100)] | None = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] | None = 1.0
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = 0
    min_p: Annotated[float, Field(ge=0, le=1)] | None = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = 1.0
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = 1
    best_of: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: StopField = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=256)] | None = None
    ignore_eos: bool | None = False
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    echo: bool | None = False
    logit_bias: Annotated[dict[str, float], Field(max_length=1024), AfterValidator(_bias)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    suffix: Annotated[Any, AfterValidator(_only_none)] = None
    user: Text | None = None

    @property
    def choices(self) -> int:
        """How many to show."""
        return self.n or 1

    @property
    def tries(self) -> int:
        """How many to write."""
        return self.choices if self.best_of is None else self.best_of

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def biases(self) -> dict[int, float]:
        return {int(key): bias for key, bias in (self.logit_bias or {}).items()}

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage
