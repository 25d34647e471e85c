"""POST /v1/chat/completions."""

from fastapi import APIRouter, Request, Response

from server.api import answers
from server.api.chat_answers import ChatAnswers
from server.api.chat_schemas import ChatRequest
from server.api.documents import CHAT
from server.api.generation import answer
from server.api.talk import ask_chat
from server.service import Service

router = APIRouter()


@router.post("/v1/chat/completions", responses={200: CHAT})
async def chat_completions(body: ChatRequest, request: Request) -> Response:
    """Answer messages. A 400 when the model has no chat template."""
    service: Service = request.app.state.service
    asked = await ask_chat(body, service)
    return await answer(ChatAnswers(answers.Request(asked, service)), request.receive)
