"""GET /metrics: for Prometheus."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from server.metrics import exposition

router = APIRouter()


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """What the server does and holds, in Prometheus's text format."""
    return Response(exposition(request.app.state.service), media_type=CONTENT_TYPE_LATEST)
