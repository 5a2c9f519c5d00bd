"""What stands between the demo and whoever can reach its port.

* A page of another site cannot use the demo through the user's browser: `Host` must be a name of this server (no DNS
  rebinding), and an `Origin` must be the server's own (no cross-site requests).
* A request body is bounded in bytes and in time, and so is what all requests hold together.
* A failure of ours is answered 500 without a word about it, and leaves one line on stderr.

Nothing here reads or writes a file.
"""

import asyncio
import contextlib
import ipaddress
import json
import re
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_STYLE_BYTES = 8 * 2**20  # of an image file
MAX_BODY_BYTES = 4 * -(-MAX_STYLE_BYTES // 3) + 64 * 2**10  # that image in base64, and the other values
MAX_HELD_BYTES = 64 * 2**20  # of all request bodies at a time
MAX_ADDRESS_BYTES = 2048
BODY_SECONDS = 20.0  # a body must have come by then
SEND_SECONDS = 20.0  # a part of an answer must have been taken by then
HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(:\d{1,5})?")
WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 (recognised, never bound by default)


class Refused(Exception):
    """A request that is not let through: the status, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class RequestFilter:
    """ASGI middleware around the demo.

    Args:
        app: The demo.
        host: The address that is listened on. Where it is every address of the machine, a request may name the machine or
            any IP address: a name that somebody else's DNS resolves to it is still refused.
        policy: Content-Security-Policy of every answer.
        log: Takes the line about a failure inside the app; by default it is printed to stderr.
    """

    def __init__(self, app: App, host: str, policy: str = "", log: Callable[[str], None] | None = None) -> None:
        self.app, self.log = app, log or _print
        self.any_address = host in WILDCARDS
        self.names = {"localhost", "127.0.0.1", "[::1]", host.lower(), f"[{host.lower()}]"}
        if self.any_address:
            self.names |= {socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
        self.headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"x-frame-options", b"DENY"),
            (b"cache-control", b"no-store"),
        ]
        self.held = 0  # bytes of request bodies that are not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the app answer it."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # a websocket: nothing here speaks it
            return await send({"type": "websocket.close", "code": 1008})
        started = False

        async def guarded_send(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", []), *self.headers]
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        held: list[int] = []
        try:
            self._check(scope)
            await self.app(scope, await self._body(scope, receive, held), guarded_send)
        except Refused as refused:
            if not started:
                await _answer(guarded_send, refused.status, refused.reason)
        except Exception as error:
            kind = type(error).__name__
            self.log(f"t2i-demo: {scope['method']} {scope['path']!r:.200} failed: {kind}: {_line(error)}")
            if started:
                raise  # the connection is closed
            await _answer(guarded_send, 500, "the demo failed; its terminal says why")
        finally:
            self.held -= sum(held)

    def _check(self, scope: Scope) -> None:
        """Refuse other sites, and addresses that are absurd."""
        if len(scope.get("query_string", b"")) > MAX_ADDRESS_BYTES or len(scope["path"]) > MAX_ADDRESS_BYTES:
            raise Refused(414, "the address is too long")
        headers = [(name, value.decode("latin-1").lower()) for name, value in scope["headers"]]
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            raise Refused(421, "this demo is not served under that host name")
        # A page of this demo sends the origin that its own address has; the port counts, unlike that of Host, which differs
        # from ours behind a tunnel.
        origins = {value for name, value in headers if name == b"origin"}
        if origins - {f"http://{hosts[0]}", f"https://{hosts[0]}"}:
            raise Refused(403, "requests from other sites are refused")
        fetched = {value for name, value in headers if name == b"sec-fetch-site"}
        if scope["method"] not in ("GET", "HEAD") and fetched - {"same-origin", "none"}:
            raise Refused(403, "requests from other sites are refused")

    def _is_ours(self, host: str) -> bool:
        found = HOST.fullmatch(host)
        if not found:
            return False
        name = found[1]
        if name in self.names:
            return True
        if self.any_address:
            with contextlib.suppress(ValueError):
                ipaddress.ip_address(name.strip("[]"))
                return True
        return False

    async def _body(self, scope: Scope, receive: Receive, held: list[int]) -> Receive:
        """Read the body of a POST; returns the channel the app shall read it from."""
        if scope["method"] != "POST":
            return receive
        declared = [value for name, value in scope["headers"] if name == b"content-length"]
        if declared and (len(declared[0]) > 12 or int(declared[0]) > MAX_BODY_BYTES):
            raise Refused(413, f"a request may hold {MAX_BODY_BYTES} bytes")
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_SECONDS):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Refused(400, "the request broke off")
                    parts.append(message.get("body", b""))
                    held.append(len(parts[-1]))
                    self.held += held[-1]
                    more = message.get("more_body", False)
                    if sum(held) > MAX_BODY_BYTES:
                        raise Refused(413, f"a request may hold {MAX_BODY_BYTES} bytes")
                    if self.held > MAX_HELD_BYTES:
                        raise Refused(429, "busy: try again")
        except TimeoutError:
            raise Refused(408, "the request did not arrive in time") from None
        body = b"".join(parts)
        parts.clear()
        given = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal given, body
            if given:
                return await receive()  # the disconnection
            given = True
            content, body = body, b""
            return {"type": "http.request", "body": content, "more_body": False}

        return replay


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status in (400, 408, 413, 429):  # what is left of the body is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _print(line: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a closed terminal is no reason to fail
        print(line.encode("ascii", "backslashreplace").decode(), file=sys.stderr, flush=True)
