"""GET /: the web page, three small files out of the package. It may load nothing from elsewhere, and nothing inline."""

from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

router = APIRouter(include_in_schema=False)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
TYPES = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}


@router.head("/")
@router.get("/")
async def page() -> Response:
    return file("page.html")


@router.get("/web/page.css")
async def style() -> Response:
    return file("page.css")


@router.get("/web/page.js")
async def script() -> Response:
    return file("page.js")


def file(name: str) -> Response:
    return Response((files("server.web") / name).read_bytes(), media_type=TYPES[name], headers=HEADERS)
