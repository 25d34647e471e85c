"""Asking an application without a network, and the one shape of errors."""

import asyncio
from typing import Any, cast

import httpx
from starlette.types import ASGIApp


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    """Without certificates, which take longer to read than a test to run."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(cast(Any, app)), base_url="http://test", verify=False)


def ask(app: ASGIApp, method: str, path: str, **sent: Any) -> httpx.Response:
    async def once() -> httpx.Response:
        async with client_of(app) as client:
            return await client.request(method, path, **sent)

    return asyncio.run(once())


def checked(answer: httpx.Response) -> dict[str, Any]:
    """The error in an answer, after a look at its shape."""
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str)
    assert isinstance(body["error"]["code"], str | None)
    assert answer.headers["x-request-id"].startswith("req_")
    error: dict[str, Any] = body["error"]
    return error
