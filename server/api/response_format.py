"""`response_format`: the form a text must have. Knows no grammar library."""

from typing import Annotated, Any, Literal

from pydantic import Field

from server.api.fields import Strict, Text
from server.grammars import Form


class PlainText(Strict):
    type: Literal["text"]

    @property
    def form(self) -> None:
        return None


class JsonObject(Strict):
    type: Literal["json_object"]

    @property
    def form(self) -> Form:
        return Form("json_schema", {"type": "object"})


class NamedSchema(Strict):
    """As OpenAI has it; `strict` is always on."""

    name: Text | None = None
    description: Text | None = None
    strict: bool | None = True
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]


class JsonSchema(Strict):
    type: Literal["json_schema"]
    json_schema: NamedSchema

    @property
    def form(self) -> Form:
        return Form("json_schema", self.json_schema.json_schema)


class Regex(Strict):
    type: Literal["regex"]
    regex: Annotated[Text, Field(min_length=1)]

    @property
    def form(self) -> Form:
        return Form("regex", self.regex)


ResponseFormat = Annotated[PlainText | JsonObject | JsonSchema | Regex, Field(discriminator="type")]
