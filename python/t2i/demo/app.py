"""The web demo: sentences in, a grid of images out, in a browser on the same machine.

* `DemoModel` generates and knows nothing of the web; `page.html` is the whole page; `Server` serves it behind `RequestFilter`.
* There are three addresses and none of them names a file: the page, what the model can do, and `api/generate`, which takes
  the values of the controls as JSON (the style image in base64) and answers with a PNG. Nothing is written to disk.
* Nothing leaves the machine: no fonts or scripts from other hosts; by default it listens on 127.0.0.1.
"""

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any
from urllib.parse import quote

from t2i.demo.guard import MAX_STYLE_BYTES, RequestFilter
from t2i.demo.model import EXAMPLES, MAX_CAPTION_CHARACTERS, MAX_IMAGES, DemoModel
from t2i.errors import ConfigError, DataError
from t2i.extras import require
from t2i.pipeline import Pipeline

MAX_QUEUE = 32  # requests that wait for the model; more are told to try again
FIELDS = {"sentence", "other", "between", "noise", "style", "count", "seed", "truncation"}


def content_policy(page: str) -> str:
    """Allow the page its own script and style sheet, by their hashes, and nothing else."""

    def hashed(tag: str) -> str:
        inside = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in inside)

    return (
        f"default-src 'none'; script-src {hashed('script')}; style-src {hashed('style')}; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def values_of(body: bytes) -> dict[str, Any]:
    """Read the values of a request; ConfigError where they are no JSON object of known names."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConfigError("the body must be JSON") from error
    if not isinstance(values, dict) or not values.keys() <= FIELDS or "sentence" not in values:
        raise ConfigError(f"the body must be a JSON object with a sentence, and some of {', '.join(sorted(FIELDS))}")
    style = values.get("style")
    if style is not None:
        try:
            values["style"] = base64.b64decode(style, validate=True)
        except (ValueError, TypeError) as error:
            raise ConfigError("the style must be the content of an image file in base64") from error
        if len(values["style"]) > MAX_STYLE_BYTES:
            raise ConfigError(f"a style image may have {MAX_STYLE_BYTES} bytes")
    return values


UNREAD = "T2I-Unread"  # header: what the model does not know of the sentences, percent-encoded


def application(model: DemoModel, page: str) -> Any:
    """Build the ASGI application: three addresses."""
    require("starlette", "t2i-demo", "demo")
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    worker = ThreadPoolExecutor(1, "t2i-demo-model")  # the model draws one grid at a time
    waiting = 0

    def draw(values: dict[str, Any]) -> Response:
        content = io.BytesIO()
        model.draw(**values).save(content, "PNG")
        unread = model.unread(values["sentence"], values.get("other"))
        return Response(content.getvalue(), media_type="image/png", headers={UNREAD: quote(unread)} if unread else None)

    async def generate(request: Request) -> Response:
        nonlocal waiting
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return JSONResponse({"error": "the body must be application/json"}, 415)
        try:
            values = values_of(await request.body())
            if waiting >= MAX_QUEUE:
                return JSONResponse({"error": "busy: try again"}, 429)
            waiting += 1
            try:
                drawing = worker.submit(draw, values)
                done, left = asyncio.wrap_future(drawing), asyncio.ensure_future(_left(request))
                both: list[asyncio.Future[Any]] = [done, left]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                left.cancel()
                if not done.done() and drawing.cancel():  # the client has disconnected before the drawing began
                    return Response(status_code=400)
                return await done
            finally:
                waiting -= 1
        except (ConfigError, DataError) as error:
            return JSONResponse({"error": str(error).encode("utf-8", "replace").decode()}, 400)

    async def describe(request: Request) -> Response:
        return JSONResponse(
            {
                "style": model.has_style,
                "style_bytes": MAX_STYLE_BYTES,
                "images": MAX_IMAGES,
                "characters": MAX_CAPTION_CHARACTERS,
                "examples": model.examples,
            }
        )

    async def show(request: Request) -> Response:
        return HTMLResponse(page)

    routes = [Route("/", show), Route("/api/model", describe), Route("/api/generate", generate, methods=["POST"])]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return app


async def _left(request: Any) -> None:
    """Wait until the client disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Server:
    """The demo on a port of its own.

    Args:
        pipe: The trained model.
        host: Address to listen on; 127.0.0.1 is this machine alone.
        port: 0 takes a free one.

    Raises:
        ConfigError: the extra is not installed, the port is taken, or the model has no text encoder.
    """

    def __init__(self, pipe: Pipeline, host: str = "127.0.0.1", port: int = 0) -> None:
        pipe.embed([EXAMPLES[0]])  # says at once where there is no text encoder
        uvicorn = require("uvicorn", "t2i-demo", "demo")
        page = resources.files("t2i.demo").joinpath("page.html").read_text(encoding="utf-8")
        app = RequestFilter(application(DemoModel(pipe), page), host, content_policy(page))
        from t2i.demo.connections import BoundedConnection

        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=128)
        except (OSError, OverflowError, ValueError) as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error}); choose another --port, 0 takes a free one"
            ) from error
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._socket.getsockname()[1]}"
        settings = uvicorn.Config(
            app,
            http=BoundedConnection,
            ws="none",
            lifespan="off",
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(settings)

    def run(self) -> None:
        """Serve until the process is asked to stop."""
        with contextlib.closing(self._socket):
            self._server.run(sockets=[self._socket])

    def __enter__(self) -> "Server":
        """Serve from a thread."""
        self._thread = threading.Thread(target=self.run, name="t2i-demo", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(timeout=20)
