"""GET /health: 200 while requests can be served, 503 when the engine has stopped; while the model loads, `loading.py` answers."""

from fastapi import APIRouter, Request

from server.api.documents import HealthAnswer
from server.service import Service

router = APIRouter()


@router.head("/health", include_in_schema=False)
@router.get("/health")
async def health(request: Request) -> HealthAnswer:
    service: Service = request.app.state.service
    if not service.bridge.alive:
        raise service.bridge.ended
    return HealthAnswer(status="ok", unfinished=service.bridge.unfinished)
