"""CORS: which other origins' pages may ask. Starlette's middleware, whose refusals get our shape."""

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from server.api.errors import NotAllowed, response_of

PLAIN = ("content-length", "content-type")  # of Starlette's own refusal


class Cors(CORSMiddleware):
    """Pages of `origins` ("*": of any) may ask; keys go in headers, so no cookies are let through."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        exposed = ("x-request-id", "retry-after")
        super().__init__(app, allow_origins=origins, allow_methods=("GET", "POST"), allow_headers=("*",), expose_headers=exposed)
        self.allow_private_network = True  # Chromium asks for it where a page from the Internet asks this machine: that was allowed by name

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        return answer if answer.status_code == 200 else refusal(answer)


def refusal(answer: Response) -> JSONResponse:
    """The same in our shape; Starlette's headers tell the browser."""
    ours = response_of(NotAllowed(bytes(answer.body).decode()))
    ours.headers.update({name: value for name, value in answer.headers.items() if name not in PLAIN})
    return ours
