"""Keys: who may ask. With no key set, everybody who can reach the port."""

import hashlib
import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.errors import Unauthorized, response_of

PUBLIC = ("/health", "/")  # a watchdog has no key, and the page asks its user for one
PUBLIC_FOLDER = "/web/"  # what the page is made of


class Keys:
    """Lets requests through that carry one of `keys`, as `Authorization: Bearer KEY` or as `X-Api-Key: KEY`."""

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self.app = app
        self.digests = [digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.digests or is_public(scope["path"]) or self.knows(given(scope)):
            return await self.app(scope, receive, send)
        await response_of(Unauthorized())(scope, receive, send)

    def knows(self, key: bytes) -> bool:
        """Compares with every key, and digests of equal length, so that the time tells nothing of how much was right."""
        asked = digest(key)
        return sum([hmac.compare_digest(asked, own) for own in self.digests]) > 0


def digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def is_public(path: str) -> bool:
    return path in PUBLIC or path.startswith(PUBLIC_FOLDER)


def given(scope: Scope) -> bytes:
    """The key of a request; empty when it has none."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
