"""GET /v1/models and /v1/models/{id}: the one model that is served."""

from fastapi import APIRouter, Request

from server.api.documents import ModelAnswer, ModelList
from server.api.errors import UnknownModel
from server.service import Service

router = APIRouter()


def described(service: Service) -> ModelAnswer:
    return ModelAnswer(id=service.model, object="model", created=service.created, owned_by="thermocline", max_model_len=service.context)


@router.get("/v1/models")
async def list_models(request: Request) -> ModelList:
    return ModelList(object="list", data=[described(request.app.state.service)])


@router.get("/v1/models/{model:path}")
async def show_model(model: str, request: Request) -> ModelAnswer:
    service: Service = request.app.state.service
    if model != service.model:
        raise UnknownModel(model, service.model)
    return described(service)
