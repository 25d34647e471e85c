"""What a client may send to /v1/completions. Knows no model."""

from typing import Annotated

from pydantic import Field

from server.api.fields import FIRST, MOST_CHOICES, MOST_IDS, MOST_LOGPROBS, Text, TokenId, one_message, refusing
from server.api.sampling_fields import SamplingFields

Ids = Annotated[list[TokenId], Field(max_length=MOST_IDS), FIRST]
PromptField = Annotated[
    Text | Annotated[list[Text], Field(max_length=MOST_CHOICES), FIRST] | Ids | Annotated[list[Ids], Field(max_length=MOST_CHOICES), FIRST],
    one_message(
        f"must be a string, a list of strings, a list of token ids, or a list of lists of token ids, of at most {MOST_CHOICES} texts"
    ),
]


class CompletionRequest(SamplingFields):
    """Fields as OpenAI's legacy completions have them, and the usual extensions of local servers."""

    prompt: PromptField
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = 16
    best_of: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    echo: bool | None = False
    suffix: refusing("filling in before a suffix is not supported") = None  # type: ignore[valid-type]

    @property
    def tries(self) -> int:
        return self.choices if self.best_of is None else self.best_of

    @property
    def alternatives(self) -> int | None:
        return self.logprobs

    @property
    def echoes(self) -> bool:
        return bool(self.echo)
