"""What a client may send to /v1/chat/completions. Knows no model and no template."""

from typing import Annotated, Literal

from pydantic import Field

from server.api.fields import FIRST, MOST_LOGPROBS, Strict, Text, one_message, refusing
from server.api.sampling_fields import SamplingFields

MOST_MESSAGES = 4096
NO_TOOLS = "tools are not supported"


class TextPart(Strict):
    type: Literal["text"]
    text: Text


ContentField = Annotated[
    Text | Annotated[list[TextPart], Field(max_length=MOST_MESSAGES), FIRST],
    one_message(
        "must be a text without half characters, or a list of parts {'type': 'text', 'text': …}; images and sounds are not supported"
    ),
]


class Message(Strict):
    """`developer` is the newer name of `system`. The fields that only null fits are there so that an answer may be sent back as it came."""

    role: Literal["system", "developer", "user", "assistant"]
    content: ContentField
    name: Text | None = None
    refusal: refusing("answers are never refused") = None  # type: ignore[valid-type]
    tool_calls: refusing(NO_TOOLS) = None  # type: ignore[valid-type]
    function_call: refusing(NO_TOOLS) = None  # type: ignore[valid-type]
    audio: refusing("there is no audio") = None  # type: ignore[valid-type]
    annotations: refusing("there are none") = None  # type: ignore[valid-type]

    @property
    def plain(self) -> dict[str, str]:
        """As templates know it: one string."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": text} | ({} if self.name is None else {"name": self.name})


class ChatRequest(SamplingFields):
    """Without `max_tokens` an answer may fill the context."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES), FIRST]
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    tools: refusing(NO_TOOLS) = None  # type: ignore[valid-type]
    tool_choice: refusing(NO_TOOLS) = None  # type: ignore[valid-type]
    functions: refusing(NO_TOOLS) = None  # type: ignore[valid-type]
    function_call: refusing(NO_TOOLS) = None  # type: ignore[valid-type]

    @property
    def alternatives(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def limit(self) -> int | None:
        """Tokens of one answer, by whichever name it was given."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
