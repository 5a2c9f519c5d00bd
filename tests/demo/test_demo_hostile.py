"""What the demo answers to hostile requests."""

import asyncio
import http.client
import io
import json
import os
import random
import socket
import struct
import urllib.parse
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promises import cases
from t2i.demo.app import DemoModel
from t2i.demo.guard import MAX_JSON_BYTES, MAX_UPLOAD_BYTES, RequestFilter
from t2i.pipeline import Pipeline

pytestmark = pytest.mark.usefixtures("one_thread")
RED = "a flower with five red petals"


@pytest.fixture
def server(demo):
    return demo


def ask(server, method, path, body=None, headers=None, timeout=60):
    """Send a request; the status and the first bytes of the answer."""
    where = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        streamed = answer.getheader("content-type", "").startswith("text/event-stream")
        return answer.status, b"" if streamed else answer.read(4096)
    except (BrokenPipeError, ConnectionResetError):  # the server closed while we still sent: its answer may be lost
        return 413, b""
    finally:
        connection.close()


def say(server, data):
    """Send raw bytes; the status, or None where the server hangs up."""
    where = urllib.parse.urlsplit(server.url)
    with socket.create_connection((where.hostname, where.port), timeout=60) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        first = connection.makefile("rb").readline()
    return int(first.split()[1]) if first.startswith(b"HTTP/") else None


def multipart(name, content, kind="image/png", field="files"):
    body = (
        f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'
    ).encode("utf-8", "surrogateescape") + content + b"\r\n--edge--\r\n"  # fmt: skip
    return body, {"Content-Type": "multipart/form-data; boundary=edge"}


def bomb(width, height):
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
        + chunk(b"IEND", b"")
    )


FILE = {"meta": {"_type": "gradio.FileData"}, "orig_name": "a.png", "mime_type": "image/png", "size": 5}
VALUES = [
    None, True, -1, 0, 1e308, -0.0, 10**30, "", " ", "x" * 50_000, "\0", "\ud83c", "🌻" * 1000, [], {}, [[]], {"a": {"b": []}},
    float("nan"), float("inf"), {**FILE, "path": "/etc/passwd"}, {**FILE, "path": "../../../../etc/passwd"},
    {**FILE, "path": "http://127.0.0.1:1/a.png"}, {**FILE, "path": "file:///etc/passwd"}, {**FILE, "path": None},
    {**FILE, "path": "", "url": "data:image/png;base64,AAAA"}, {**FILE, "path": "a", "url": "http://127.0.0.1:1/"},
    {**FILE, "path": "\0"}, {"__type__": "update", "value": 1}, "__import__('os').system('true')",
]  # fmt: skip
PATHS = [
    "/gradio_api/file=/etc/passwd", "/gradio_api/file=../../../../etc/passwd", "/gradio_api/file=..%2f..%2fetc/passwd",
    "/gradio_api/file=%2e%2e/%2e%2e/etc/passwd", "/gradio_api/file=//etc/passwd", "/gradio_api/file=http://127.0.0.1:1/",
    "/gradio_api/file=https:%2f%2fexample.org/", "/gradio_api/file=%00", "/gradio_api/file=", "/gradio_api/file=.",
    "/file=/etc/passwd", "/gradio_api/proxy=http://127.0.0.1:1/", "/static/../../../../etc/passwd",
    "/static/%2e%2e/%2e%2e/routes.py",
    "/assets/..%2f..%2f..%2froutes.py", "/gradio_api/queue/data", "/gradio_api/queue/data?session_hash=%00",
    "/gradio_api/upload_progress?upload_id=nothing", "/gradio_api/heartbeat/%ff%fe", "/gradio_api/deep_link?session_hash=a",
    "/gradio_api/custom_component/a/b/c/..%2f..%2fd", "/gradio_api/stream/a/b/c/playlist.m3u8", "/monitoring", "/monitoring/x",
    "/gradio_api/vibe-code", "/gradio_api/openapi.json", "/docs", "/openapi.json", "/gradio_api/call/draw/none",
    "/gradio_api/runs", "/gradio_api/run-history/buckets", "/svelte/../a", "/%", "/%zz", "/" + "a" * 5000, "/?" + "b" * 5000,
    "/config?x=%f0%28", "//", "/./", "/gradio_api/token", "/login_check", "/theme.css?" + "&".join(f"a{i}" for i in range(200)),
]  # fmt: skip
POSTS = [
    "/gradio_api/queue/join", "/gradio_api/call/draw", "/gradio_api/call/nothing", "/gradio_api/call/v2/draw",
    "/gradio_api/cancel",
    "/gradio_api/reset", "/gradio_api/upload", "/gradio_api/run/draw", "/gradio_api/api/draw", "/gradio_api/vibe-edit",
    "/gradio_api/process_recording", "/gradio_api/stream/a", "/gradio_api/run-history/connect", "/login", "/",
]  # fmt: skip
BODIES = [
    b"", b"{", b"null", b"[]", b"1", b'"a"', b"\xff\xfe", b"{}", b"[" * 30_000, b'{"a":' * 10_000, b'{"data": "draw"}',
    b'{"data": []}', b'{"data": [], "fn_index": -1}', b'{"data": [], "fn_index": 99999, "session_hash": "a"}',
    b'{"data": [], "fn_index": "x"}', b'{"data": null, "session_hash": {"a": 1}}', b'{"data": [1,2,3], "fn_index": 0}',
    b'{"session_hash": "a", "fn_index": 0, "event_id": "b"}', b'{"data": [' + b"0," * 20_000 + b'0]}',
    b"x" * (MAX_JSON_BYTES + 1),
]  # fmt: skip
RAW = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100,
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
    b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n{}",
    b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"get / http/1.1\r\n\r\n",
]  # fmt: skip


HEADERS = [
    {"Range": "bytes=9999999999-1"}, {"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Cookie": "a=" + "b" * 3000},
    {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "javascript"}, {"Accept-Language": "x" * 2000},
    {"Content-Type": "\xff"}, {"Expect": "100-continue"}, {"Authorization": "Basic !!!"}, {"If-Modified-Since": "never"},
    {"Accept-Encoding": "gzip;q=-1"},
]  # fmt: skip


def hostile(server, case, draw_index, length):
    """Send the request of a case, a pure function of its number: the statuses that came."""
    draws, kind = random.Random(case), case % 8
    session = f"hostile{case}"
    json_headers = {"Content-Type": "application/json"}
    if kind in (0, 1):  # values of every type where the page's are expected
        data = [RED, "", 0, 0, None, 1, 0][:length]
        for place in draws.sample(range(length), draws.randint(1, length)):
            data[place] = draws.choice(VALUES)
        data = data[: draws.choice([length, length, length, 0, 3])] + ["more"] * draws.choice([0, 0, 0, 5])
        body = json.dumps({"data": data, "fn_index": draw_index, "session_hash": session}).encode()
        found = [ask(server, "POST", "/gradio_api/queue/join", body, json_headers)[0]]
        if draws.random() < 0.3:  # somebody who also listens
            found.append(ask(server, "GET", f"/gradio_api/queue/data?session_hash={session}")[0])
        return found
    if kind == 2:
        return [ask(server, draws.choice(["GET", "HEAD"]), draws.choice(PATHS))[0]]
    if kind == 3:
        return [ask(server, "POST", draws.choice(POSTS), draws.choice(BODIES), json_headers)[0]]
    if kind == 4:  # uploads
        name = draws.choice(
            ["a.png", "../../../evil.png", "/etc/passwd", "a" * 5000, "\0.png", "a\r\nX: y.png", "", "x.svg", "x.html"]
        )
        content = draws.choice(
            [b"", b"<script>", bomb(60_000, 60_000), b"\0" * (MAX_UPLOAD_BYTES + 1), draws.randbytes(5000)]
        )
        body, headers = multipart(
            name, content, draws.choice(["image/png", "text/html", "x" * 200]), draws.choice(["files", "f"])
        )
        headers = draws.choice(
            [headers, headers, {"Content-Type": "multipart/form-data"}, {}, {"Content-Type": "text/plain"}]
        )
        return [ask(server, "POST", "/gradio_api/upload" + draws.choice(["", "?upload_id=a"]), body, headers)[0]]
    if kind == 5:  # a picture that is none, or a bomb, as the style
        content = draws.choice(
            [bomb(60_000, 60_000), bomb(5001, 5000), b"GIF89a" + draws.randbytes(100), draws.randbytes(3000)]
        )
        status, answer = ask(server, "POST", "/gradio_api/upload", *multipart("a.png", content))
        style = {**FILE, "path": json.loads(answer)[0]}
        body = json.dumps(
            {"data": [RED, "", 0, 0, style, 1, 0], "fn_index": draw_index, "session_hash": session}
        ).encode()
        return [status, ask(server, "POST", "/gradio_api/queue/join", body, json_headers)[0]]
    if kind == 6:
        return [say(server, draws.choice(RAW))]
    method = draws.choice(["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "POST", "GET"])
    path = draws.choice(["/", "/config", "/gradio_api/info", "/gradio_api/queue/join", "/theme.css"])
    return [ask(server, method, path, b"{}", draws.choice(HEADERS))[0]]


def resident():
    """Memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def settled(server, draw_index):
    """Draw as the page does, and wait for the picture: everything asked before has been answered then."""
    body = {"data": [RED, "", 0, 0, None, 1, 0], "fn_index": draw_index, "session_hash": "settled"}
    status, _ = ask(server, "POST", "/gradio_api/queue/join", json.dumps(body), {"Content-Type": "application/json"})
    while status == 429:  # the queue is full of hostile requests
        status, _ = ask(
            server, "POST", "/gradio_api/queue/join", json.dumps(body), {"Content-Type": "application/json"}
        )
    assert status == 200
    with urllib.request.urlopen(f"{server.url}/gradio_api/queue/data?session_hash=settled", timeout=100) as events:
        for line in events:
            if line.startswith(b"data:"):
                event = json.loads(line[5:])
                if event["msg"] == "process_completed":
                    return event
    raise AssertionError("the demo hung up")


@pytest.mark.promise(26)
def test_hostile_requests_are_answered_with_2xx_or_4xx_and_cost_no_memory(server, tiny_run_with_style, tally):
    config = json.loads(urllib.request.urlopen(f"{server.url}/config").read())
    (draw,) = [each for each in config["dependencies"] if each["api_name"] == "draw"]
    for case in range(8):  # what is loaded once is not what grows
        hostile(server, -1 - case, draw["id"], len(draw["inputs"]))
    settled(server, draw["id"])
    before = resident()
    for case in tally(cases(26)):
        statuses = hostile(server, case, draw["id"], len(draw["inputs"]))
        assert all(status is None or 200 <= status < 300 or 400 <= status < 500 for status in statuses), (
            case,
            statuses,
        )
    event = settled(server, draw["id"])
    assert event["success"]
    assert resident() - before < 100e6
    source = event["output"]["data"][0]["url"]
    sheet = np.asarray(Image.open(io.BytesIO(urllib.request.urlopen(source).read())))
    expected = np.asarray(DemoModel(Pipeline.from_pretrained(tiny_run_with_style)).draw(RED, count=1))
    assert np.abs(sheet.astype(int) - expected).max() <= 1  # it still draws, and the same


def filtered(app, content=b"", **scope):
    """Ask a filtered ASGI app; the status, the body, and what was logged."""
    sent, lines = [], []
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""} | scope

    async def receive():
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(RequestFilter(app, lines.append)(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent), lines


async def raising(scope, receive, send):
    raise RuntimeError("secret of the demo")


def answering(status):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"Traceback: secret of the demo"})

    return app


@pytest.mark.parametrize(
    ("app", "status"),
    [(raising, 500), (answering(500), 500), (answering(502), 500), (answering(503), 429)],  # 503: the queue is full
)
def test_a_fault_of_the_demo_is_its_own_and_one_line_says_so(app, status):
    found, body, lines = filtered(app)
    assert found == status
    assert b"secret" not in body
    assert len(lines) == 1
    assert lines[0].startswith("t2i-demo: GET '/' ")


@pytest.mark.parametrize("status", [200, 404, 422])
def test_other_answers_of_the_demo_are_passed_on(status):
    assert filtered(answering(status))[::2] == (status, [])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/gradio_api/queue/join", {"fn_index": 0, "session_hash": "a"}),
        ("/gradio_api/queue/join", {"data": [], "session_hash": "a"}),
        ("/gradio_api/queue/join", {"data": "draw", "fn_index": 0, "session_hash": "a"}),
        ("/gradio_api/queue/join", {"data": [], "fn_index": True, "session_hash": "a"}),
        ("/gradio_api/queue/join", {"data": [], "fn_index": 0, "session_hash": {}}),
        ("/gradio_api/call/draw", {}),
        ("/gradio_api/cancel", {"session_hash": "a", "fn_index": 0}),
        ("/gradio_api/reset", {"event_id": 3}),
    ],
)
def test_a_body_that_gradio_would_fail_on_is_refused_before_it_sees_it(path, body):
    async def app(scope, receive, send):
        raise AssertionError("the app was asked")

    status, answer, lines = filtered(app, json.dumps(body).encode(), method="POST", path=path)
    assert (status, lines) == (400, [])
    assert b"the body needs" in answer


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/config", 200),
        ("GET", "/gradio_api/file=/etc/passwd", 403),
        ("GET", "/gradio_api/file=http://127.0.0.1:1/", 404),
        ("GET", "/gradio_api/proxy=http://127.0.0.1:1/", 404),
        ("POST", "/gradio_api/run/draw", 404),
        ("PUT", "/", 405),
        ("GET", "/" + "a" * 5000, 414),
    ],
)
def test_only_what_the_page_needs_is_there(server, method, path, status):
    assert ask(server, method, path, "{}" if method == "POST" else None)[0] == status


def test_a_file_that_is_elsewhere_is_not_fetched(server):
    """A picture's address in a request would make Gradio go and get it."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.5)
        style = {**FILE, "path": f"http://127.0.0.1:{elsewhere.getsockname()[1]}/a.png"}
        body = json.dumps({"data": [RED, "", 0, 0, style, 1, 0], "fn_index": 0, "session_hash": "fetch"})
        status, answer = ask(server, "POST", "/gradio_api/queue/join", body, {"Content-Type": "application/json"})
        assert status == 400
        assert b"files of this demo only" in answer
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_a_request_beyond_the_limit_is_413_before_gradio_sees_it(server):
    headers = {"Content-Type": "application/json"}
    assert ask(server, "POST", "/gradio_api/queue/join", b" " * (MAX_JSON_BYTES + 1), headers)[0] == 413
    body, headers = multipart("a.png", b"\0" * MAX_UPLOAD_BYTES)
    assert ask(server, "POST", "/gradio_api/upload", body, headers)[0] == 413
