"""The ASGI application: routes, the error table, and the envelope around every request."""

from fastapi import FastAPI

from server.api import completions, errors, health, models
from server.api.envelope import Envelope
from server.service import Service

BODY_LIMIT_BYTES = 8 << 20


def build_app(service: Service, *, body_limit_bytes: int = BODY_LIMIT_BYTES) -> Envelope:
    app = FastAPI(title="Thermocline", description="A local LLM server. Errors have one shape; see docs/http.md.")
    app.state.service = service
    errors.install(app)
    for part in (completions, models, health):
        app.include_router(part.router)
    return Envelope(app, body_limit_bytes)
