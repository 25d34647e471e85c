"""POST /v1/completions."""

from fastapi import APIRouter, Request, Response

from server.api import answers
from server.api.documents import COMPLETION
from server.api.generation import answer
from server.api.prompts import ask_completion
from server.api.schemas import CompletionRequest
from server.api.text_answers import TextAnswers
from server.service import Service

router = APIRouter()


@router.post("/v1/completions", responses={200: COMPLETION})
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Continue a text."""
    service: Service = request.app.state.service
    asked = await ask_completion(body, service)
    return await answer(TextAnswers(answers.Request(asked, service)), request.receive)
