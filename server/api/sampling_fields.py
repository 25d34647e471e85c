"""The fields that completions and chats share: what to draw tokens by, when to end, how to answer."""

from typing import Annotated

from pydantic import Field

from server.api.fields import MOST_CHOICES, BiasField, StopField, StreamOptions, Strict, Text, TokenId
from server.api.response_format import ResponseFormat


class SamplingFields(Strict):
    """Null means the same as leaving a field out."""

    model: Text | None = None
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] | None = 1.0
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = 0
    min_p: Annotated[float, Field(ge=0, le=1)] | None = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = 1.0
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = 1
    stop: StopField = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=256)] | None = None
    ignore_eos: bool | None = False
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    logit_bias: BiasField | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    user: Text | None = None

    @property
    def choices(self) -> int:
        """How many to show."""
        return self.n or 1

    @property
    def tries(self) -> int:
        """How many to write."""
        return self.choices

    @property
    def alternatives(self) -> int | None:
        """How many of the likeliest tokens to report at each place; None for no report."""
        return None

    @property
    def echoes(self) -> bool:
        return False

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def biases(self) -> dict[int, float]:
        return {int(key): bias for key, bias in (self.logit_bias or {}).items()}

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)
