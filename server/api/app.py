"""The ASGI application: routes, the error table, and the layers around every request."""

from dataclasses import dataclass

from fastapi import FastAPI
from starlette.types import ASGIApp

from server.api import chat, completions, docs, errors, health, map, metrics, models, page, props, tokens
from server.api.bounds import USUAL, Bounds, Limits
from server.api.cors import Cors
from server.api.documents import ERRORS
from server.api.envelope import Envelope
from server.api.hosts import Hosts
from server.api.keys import Keys
from server.service import Service

ROUTES = (completions, chat, tokens, models, props, metrics, health, map, page, docs)


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in: `keys`, none for everybody; the `origins` whose pages may ask, none by default; `hosts`: see `names_to_answer`."""

    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    limits: Limits = USUAL
    hosts: tuple[str, ...] | None = None


OPEN = Door()


def build_app(service: Service, door: Door = OPEN) -> ASGIApp:
    """From the outside to the inside: id and log, the host's name, CORS, keys, the body, the routes."""
    described = "A local LLM server. Errors have one shape; see docs/http.md."
    app = FastAPI(title="Thermocline", description=described, responses=ERRORS, docs_url=None, redoc_url=None)  # ours: `docs.py`
    app.state.service = service
    errors.install(app)
    for part in ROUTES:
        app.include_router(part.router)
    inner: ASGIApp = Keys(Bounds(app, door.limits), door.keys)
    inner = Cors(inner, door.origins) if door.origins else inner
    return Envelope(inner if door.hosts is None else Hosts(inner, door.hosts))
