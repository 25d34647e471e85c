"""A small hub on loopback: the API routes that huggingface_hub asks, over files in memory. Breaks when told to."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class SmallHub:
    """`repos`: owner/name -> file -> bytes. `private` and `gated` repositories answer as such to who has no token.

    `cuts`: how many more downloads of a file end in the middle. `fetched`: (file, first byte) of every download.
    """

    repos: Mapping[str, Mapping[str, bytes]]
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    cuts: dict[str, int] = field(default_factory=dict)
    status: int = 200
    fetched: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(hub: SmallHub) -> Iterator[str]:
    """The hub's address, while it runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub.url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def handler_of(hub: SmallHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            api = parts[:2] == ["api", "models"]
            repo, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4:] if api else parts[2:]
            if hub.status != 200:
                self.answer(hub.status, {}, b"{}")
            elif repo not in hub.repos or repo in hub.private:
                self.answer(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"{}")
            elif repo in hub.gated:
                self.answer(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}, b"{}")
            elif len(rest) > 1 and rest[1] not in ("main", COMMIT):
                self.answer(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b"{}")
            elif api and rest[:1] == ["tree"]:
                self.json([file(name, data) for name, data in hub.repos[repo].items()])
            elif api:
                self.json(described(repo, hub.repos[repo]))
            else:
                self.download(repo, "/".join(rest[2:]))

        def download(self, repo: str, name: str) -> None:
            data = hub.repos[repo].get(name)
            if data is None:
                self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such file"}, b"")
                return
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            told = {"ETag": f'"{digest(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            if first:
                told["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            if self.command == "GET":
                hub.fetched.append((name, first))
            cut = self.command == "GET" and hub.cuts.get(name, 0) > 0
            if cut:
                hub.cuts[name] -= 1
            self.answer(206 if first else 200, told, data[first:], only=(len(data) - first) // 2 if cut else None)

        def json(self, value: Any) -> None:
            self.answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

        def answer(self, status: int, headers: Mapping[str, str], body: bytes, only: int | None = None) -> None:
            """With `only`, the connection ends after that many bytes of the body."""
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if only is None else body[:only])
            if only is not None:
                self.wfile.flush()
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file(name: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(data), "oid": digest(data)[:40]}


def described(repo: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    siblings = [{"rfilename": name, "size": len(data), "blobId": digest(data)[:40]} for name, data in files.items()]
    return {"_id": "1", "id": repo, "modelId": repo, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "siblings": siblings}
