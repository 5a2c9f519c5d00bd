"""A filter in front of the demo's web server, for whoever can reach its port.

Gradio serves some eighty routes, of which the page needs a dozen. The filter lets those through and limits the size of a
request. A malformed request is answered 4xx before Gradio sees it; a failure of the demo itself is answered 500 and leaves one
line on stderr; nothing is fetched from other hosts, by the server or by the browser.
"""

import json
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
API = "/gradio_api"
PAGES = ("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt")
FOLDERS = ("/assets/", "/static/", f"{API}/file=", f"{API}/heartbeat/")
GET = (
    *PAGES,
    f"{API}/info",
    f"{API}/info/",
    f"{API}/startup-events",
    f"{API}/app_id",
    f"{API}/theme.css",
    f"{API}/queue/data",
    f"{API}/upload_progress",
)
CALL = f"{API}/call/draw"  # for gradio_client: POST it, then GET its /EVENT
UPLOAD = f"{API}/upload"
Kinds = dict[str, type]
POST: dict[str, Kinds] = {  # the fields that Gradio fails without, and their types
    f"{API}/queue/join": {"data": list, "fn_index": int, "session_hash": str},
    CALL: {"data": list},
    f"{API}/cancel": {"session_hash": str, "fn_index": int, "event_id": str},
    f"{API}/reset": {"event_id": str},
    f"{API}/reset/": {"event_id": str},
}
MAX_JSON_BYTES = 64 * 1024  # images come through the upload
MAX_UPLOAD_BYTES = 8 * 1024 * 1024
MAX_QUERY_BYTES = 2048
FAILED = "the demo failed: see its output"
POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    b"media-src 'self' data: blob:; object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
)


class Refused(Exception):
    """A request that is refused: the status, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class RequestFilter:
    """ASGI middleware around the demo.

    Args:
        app: The demo.
        log: Called with one line about a failure of the app; prints it to stderr by default.
    """

    def __init__(self, app: App, log: Callable[[str], None] | None = None) -> None:
        self.app = app
        self.log = log or (lambda line: print(line, file=sys.stderr))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or let the app answer it."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # websockets are not used
            return await send({"type": "websocket.close", "code": 1008})
        started = False

        async def answer(status: int, reason: str) -> None:
            body = json.dumps({"error": reason}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        swallow = False  # the body of a response that was replaced

        async def checked_send(message: MutableMapping[str, Any]) -> None:
            nonlocal started, swallow
            if message["type"] == "http.response.start":
                started = True
                if message["status"] >= 500:
                    swallow = True
                    busy = message["status"] == 503
                    self.log(f"t2i-demo: {scope['method']} {scope['path']!r:.200} was answered {message['status']}")
                    return await answer(*((429, "busy: try again") if busy else (500, FAILED)))
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY)]
            if not swallow:
                await send(message)

        try:
            await self.app(scope, await self._admit(scope, receive), checked_send)
        except Refused as refused:
            if not started:
                await answer(refused.status, refused.reason)
        except Exception as error:  # the boundary of the demo: a fault is logged, not shown
            self.log(
                f"t2i-demo: {scope['method']} {scope['path']!r:.200} failed: {type(error).__name__}: {error!s:.200}"
            )
            if not started:
                await answer(500, FAILED)

    async def _admit(self, scope: Scope, receive: Receive) -> Receive:
        """Check the path and the body; returns the channel from which the app reads the body."""
        method, path = scope["method"], scope["path"]
        if len(scope.get("query_string", b"")) > MAX_QUERY_BYTES or len(path) > MAX_QUERY_BYTES:
            raise Refused(414, "the path or the query is too long")
        if method in ("GET", "HEAD"):
            if path not in GET and not path.startswith((*FOLDERS, f"{CALL}/")):
                raise Refused(404, "there is nothing here")
            if "\0" in path or "://" in path or path.startswith(f"{API}/file=http"):
                raise Refused(404, "files of this demo only")
            return receive
        if method != "POST":
            raise Refused(405, "GET and POST only")
        if path != UPLOAD and path not in POST:
            raise Refused(404, "there is nothing here")
        body = await self._read(receive, MAX_UPLOAD_BYTES if path == UPLOAD else MAX_JSON_BYTES)
        if path == UPLOAD:
            if not dict(scope["headers"]).get(b"content-type", b"").startswith(b"multipart/form-data"):
                raise Refused(415, "an upload is multipart/form-data")
        else:
            self._check_json(body, POST[path])
        given = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal given
            if given:
                return await receive()  # the disconnection
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay

    @staticmethod
    async def _read(receive: Receive, most: int) -> bytes:
        parts: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise Refused(400, "the request was cut off")
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
            if sum(map(len, parts)) > most:
                raise Refused(413, f"a request here holds at most {most} bytes")
        return b"".join(parts)

    @staticmethod
    def _check_json(body: bytes, kinds: Kinds) -> None:
        """Refuse what is not a JSON object with fields of these types, and files on other hosts: Gradio would fetch them."""
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the body must be JSON") from error
        if not isinstance(content, dict):
            raise Refused(400, "the body must be a JSON object")
        for name, kind in kinds.items():
            if not isinstance(content.get(name), kind) or isinstance(content[name], bool):
                raise Refused(400, f"the body needs {name!r}")
        left: list[Any] = [content]
        while left:
            value = left.pop()
            if isinstance(value, dict):
                path = value.get("path")
                if isinstance(path, str) and "://" in path:
                    raise Refused(400, "files of this demo only")
                left += value.values()
            elif isinstance(value, list):
                left += value
