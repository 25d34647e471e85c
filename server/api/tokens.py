"""POST /tokenize and /detokenize: what the model's tokenizer makes of a text, and back."""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from server.api.chat_schemas import MOST_MESSAGES, Message
from server.api.errors import BadRequest
from server.api.fields import FIRST, MOST_IDS, Strict, Text, TokenId
from server.api.prompts import check_ids
from server.api.reading import in_a_thread
from server.api.talk import characters_of_messages, read_messages
from server.service import Service

router = APIRouter()


class TokenizeRequest(Strict):
    """A text, or the messages of a chat. `add_special` puts before a text what a completion would have there."""

    content: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES), FIRST] | None = None
    add_special: bool | None = False
    with_pieces: bool | None = False


class Piece(BaseModel):
    id: int
    piece: str


class TokenizeAnswer(BaseModel):
    tokens: list[int] | list[Piece]
    count: int
    max_model_len: int


class DetokenizeRequest(Strict):
    tokens: Annotated[list[TokenId], Field(max_length=MOST_IDS), FIRST]


class DetokenizeAnswer(BaseModel):
    content: str


@router.post("/tokenize", response_model=TokenizeAnswer)
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """The tokens of a text. The whole answer is made in a thread: of a large text it takes longer than the tokens."""
    service: Service = request.app.state.service
    characters = len(body.content or "") + characters_of_messages(body.messages or ())
    return await in_a_thread(partial(answer, body, service), characters, service)


def answer(body: TokenizeRequest, service: Service) -> JSONResponse:
    ids = ids_of(body, service)
    shown = [*pieces(ids, service)] if body.with_pieces else ids
    return JSONResponse({"tokens": shown, "count": len(ids), "max_model_len": service.context})


def pieces(ids: list[int], service: Service) -> Iterator[dict[str, Any]]:
    spelled = {token: service.tokenizer.piece(token) for token in set(ids)}
    return ({"id": token, "piece": spelled[token]} for token in ids)


def ids_of(body: TokenizeRequest, service: Service) -> list[int]:
    if (body.content is None) == (body.messages is None):
        raise BadRequest("content", "give either content or messages")
    if body.messages is not None:
        return list(read_messages(body.messages, service).ids)
    return service.tokenizer.encode(body.content or "", special=bool(body.add_special))


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, request: Request) -> DetokenizeAnswer:
    service: Service = request.app.state.service
    check_ids("tokens", body.tokens, service)
    return DetokenizeAnswer(content=await asyncio.to_thread(service.tokenizer.decode, body.tokens))
