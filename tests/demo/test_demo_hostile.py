"""What the demo answers to those who mean it ill."""

import asyncio
import contextlib
import http.client
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import t2i
from hostile_requests import BODIES, FOREIGN, HEADERS, PATHS, POST, RAW, VALUES, bomb, encoded, files
from promises import cases
from t2i.demo import guard
from t2i.demo.app import Server, application
from t2i.demo.guard import MAX_BODY_BYTES, MAX_STYLE_BYTES, RequestFilter
from t2i.demo.model import DemoModel
from t2i.pipeline import Pipeline

connections = pytest.importorskip("t2i.demo.connections", reason="the extra is not installed: pip install 't2i[demo]'")
pytestmark = pytest.mark.usefixtures("one_thread")
RED = "a flower with five red petals"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def server(demo):
    return demo


def place(server):
    where = urllib.parse.urlsplit(server.url)
    return where.hostname, where.port


def ask(server, method, path, body=None, headers=None, timeout=60):
    """Send a request; the status and the answer."""
    connection = http.client.HTTPConnection(*place(server), timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (BrokenPipeError, ConnectionResetError):  # the server closed while we still sent: its answer may be lost
        return 413, b""
    finally:
        connection.close()


def say(server, data, timeout=60):
    """Send raw bytes; the status, or None where the server hangs up."""
    with socket.create_connection(place(server), timeout=timeout) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        try:
            first = connection.makefile("rb").readline()
        except ConnectionResetError:
            return None
    return int(first.split()[1]) if first.startswith(b"HTTP/") else None


def generate(server, headers=None, **values):
    return ask(
        server,
        "POST",
        "/api/generate",
        json.dumps({"sentence": RED, "count": 1, **values}),
        {**JSON, **(headers or {})},
    )


FIELDS = {
    "sentence": "",
    "other": "",
    "between": 0,
    "noise": 0,
    "style": None,
    "count": 1,
    "seed": 0,
    "truncation": None,
}
ONCE = [  # (kind, what is sent): every row of every table, and every value in every field
    *(("value", {"sentence": RED, name: value}) for name in FIELDS for value in VALUES),
    *(("path", path) for path in PATHS),
    *(("body", body) for body in BODIES),
    *(("raw", data) for data in RAW),
    *(("headers", headers) for headers in (*HEADERS, *FOREIGN)),
]


def once(server, kind, sent):
    """Send one row of a table; the status that came."""
    if kind == "value":
        return ask(server, "POST", "/api/generate", json.dumps({"count": 1, **sent}), JSON)[0]
    if kind == "path":
        return ask(server, "GET", sent)[0]
    if kind == "body":
        return ask(server, "POST", "/api/generate", sent, JSON)[0]
    return say(server, sent) if kind == "raw" else generate(server, sent)[0]


def hostile(server, case):
    """Send the request of a case, a pure function of its number: the statuses that came."""
    draws, kind = random.Random(case), case % 8
    if kind in (0, 1):  # values of every type where the page's are expected
        values = {**FIELDS, "sentence": RED}
        for name in draws.sample(sorted(values), draws.randint(1, len(values))):
            values[name] = draws.choice(VALUES)
        return [ask(server, "POST", "/api/generate", json.dumps(values), JSON)[0]]
    if kind == 2:
        return [ask(server, draws.choice(["GET", "HEAD"]), draws.choice(PATHS))[0]]
    if kind == 3:
        path = draws.choice(["/api/generate"] * 4 + ["/", "/api/model", "/upload", "/gradio_api/upload"])
        return [
            ask(
                server,
                "POST",
                path,
                draws.choice(BODIES),
                draws.choice([JSON, JSON, {}, {"Content-Type": "text/plain"}]),
            )[0]
        ]
    if kind == 4:  # an image that is none, a bomb, or too many bytes, as the style
        content = draws.choice(
            [
                bomb(60_000, 60_000),
                bomb(5001, 5000),
                b"GIF89a" + draws.randbytes(100),
                draws.randbytes(3000),
                b"",
                b"<svg/>",
                b"\0" * (MAX_STYLE_BYTES + 1),
                b"II*\0" + draws.randbytes(500),
                b"RIFF\xff\xff\xff\xffWEBPVP8L" + draws.randbytes(50),
            ]
        )
        return [generate(server, style=encoded(content))[0]]
    if kind == 5:
        return [generate(server, draws.choice([*HEADERS, *FOREIGN]))[0]]
    if kind == 6:
        return [say(server, draws.choice(RAW))]
    method = draws.choice(["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "POST", "GET", "FOO"])
    return [
        ask(
            server,
            method,
            draws.choice(["/", "/api/model", "/api/generate"]),
            b"{}",
            draws.choice([*HEADERS, *FOREIGN]),
        )[0]
    ]


def resident():
    """Memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.promise(26)
def test_hostile_requests_are_answered_with_2xx_or_4xx_and_cost_no_memory(server, tiny_run_with_style, tally, capfd):
    """Every row of the tables, then draws from them. The demo's own log stays empty: no fault of ours is hidden by a 4xx."""
    for case in range(16):  # what is loaded once is not what grows
        hostile(server, -1 - case)
    before = resident()
    capfd.readouterr()
    for case in tally(cases(26)):
        sent = ONCE[case] if case < len(ONCE) else None
        for status in hostile(server, case) if sent is None else [once(server, *sent)]:
            assert status is None or 200 <= status < 300 or 400 <= status < 500, (case, sent, status)
        assert capfd.readouterr().err == "", (case, sent)
    status, content = generate(server)
    assert status == 200
    assert resident() - before < 100e6
    expected = np.asarray(DemoModel(Pipeline.from_pretrained(tiny_run_with_style)).draw(RED, count=1))
    sheet = np.asarray(Image.open(io.BytesIO(content)))
    assert np.abs(sheet.astype(int) - expected).max() <= 1  # it still draws, and the same
    assert len(cases(26)) >= len(ONCE)


@pytest.fixture(scope="module")
def canary(tmp_path_factory):
    """A file that only its owner may read; and what this process opens from now on."""
    path = tmp_path_factory.mktemp("secrets") / "canary.txt"
    path.write_text("the canary sings")
    path.chmod(0o600)
    opened = []

    def watch(event, arguments):
        if event in ("open", "os.open", "shutil.copyfile", "os.link", "os.symlink"):
            opened.extend(os.fsdecode(each) for each in arguments if isinstance(each, (str, bytes, Path)))

    sys.addaudithook(watch)
    return path, opened


@pytest.mark.promise(29)
def test_no_request_reads_a_file_or_writes_one(server, canary, tally):
    path, opened = canary
    fields = ["style", "sentence", "other", "seed", "truncation"]
    sources = [name.replace("/etc/passwd", str(path)) for name in PATHS]
    asked = [(field, value) for field in fields for value in files(path)] + [("path", name) for name in sources]
    asked += [
        ("header", {name: f"../..{path}"}) for name in ("Cookie", "Referer", "X-Sendfile", "Content-Location", "Range")
    ]
    styles = len(files(path))  # all of these, and some of the others
    asked = asked[:styles] + asked[styles :: max(1, len(asked) // len(cases(29)))]
    opened.clear()
    for kind, value in tally(asked):
        if kind == "path":
            status, content = ask(server, "GET", value)
        elif kind == "header":
            status, content = ask(server, "GET", "/", headers=value)
        else:
            status, content = generate(server, **{kind: value})
        assert status < 300 or 400 <= status < 500, (kind, value)
        assert status != 200 or kind in ("header", "path", "sentence", "other"), (kind, value)
        assert b"canary sings" not in content
        assert str(path) not in content.decode("latin-1")
        assert "Traceback" not in content.decode("latin-1")
    assert [name for name in opened if "canary" in name] == []
    assert [name for name in opened if "page.html" in name or name.endswith((".png", ".json"))] == []


@pytest.mark.promise(29)
def test_another_host_or_origin_is_refused_and_ours_are_served(server, tally):
    port = place(server)[1]
    for headers in tally(FOREIGN if len(cases(29)) > 40 else FOREIGN[::3]):
        status, content = generate(server, headers)
        assert status in (400, 403, 421), headers
        assert not content.startswith(b"\x89PNG")
        if "Sec-Fetch-Site" not in headers:  # somebody may follow a link to the page
            assert ask(server, "GET", "/api/model", headers=headers)[0] in (400, 403, 421), headers
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", "localhost:9000", f"[::1]:{port}"):
        origin = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert generate(server, origin)[0] == 200, host
        assert generate(server, {"Host": host})[0] == 200, host  # curl sends no Origin


@pytest.mark.promise(29)
@pytest.mark.parametrize(
    ("listens", "host", "served"),
    [
        ("127.0.0.1", "192.168.1.7:7860", False),
        ("192.168.1.7", "192.168.1.7:7860", True),
        ("0.0.0.0", "192.168.1.7:7860", True),  # an address is no name that a stranger's DNS could point here
        ("::", "[fe80::1]:7860", True),
        ("0.0.0.0", "evil.example", False),
        ("0.0.0.0", socket.gethostname(), True),
        ("workstation.lan", "workstation.lan:7860", True),
        ("workstation.lan", "other.lan:7860", False),
    ],
)
def test_who_may_be_asked_for_depends_on_the_address_listened_on(listens, host, served):
    assert RequestFilter(None, listens)._is_ours(host.lower()) is served


@pytest.mark.promise(29)
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/api/model", 200),
        ("GET", "/api/generate", 405),
        ("POST", "/", 405),
        ("POST", "/upload", 404),
        ("GET", "/page.html", 404),
        ("GET", "/model.safetensors", 404),
        ("GET", "/file=/etc/passwd", 404),
        ("PUT", "/", 405),
        ("GET", "/" + "a" * 5000, 414),
        ("GET", "/?" + "a" * 5000, 414),
    ],
)
def test_only_what_the_page_needs_is_there(server, method, path, status):
    assert ask(server, method, path, "{}" if method == "POST" else None)[0] == status


@pytest.mark.promise(29)
def test_a_form_of_another_page_cannot_be_taken_for_json(server):
    """A form needs no permission of the browser to be sent across sites; JSON does."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        assert ask(server, "POST", "/api/generate", json.dumps({"sentence": RED}), {"Content-Type": kind})[0] == 415


@pytest.mark.promise(29)
def test_every_answer_forbids_what_is_elsewhere(server):
    for path in ("/", "/api/model", "/nothing"):
        connection = http.client.HTTPConnection(*place(server))
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Access-Control-Allow-Origin"] is None
        connection.close()


@pytest.mark.promise(29)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_limit_is_413_whatever_it_declares(server, chunked):
    content = b" " * (MAX_BODY_BYTES + 1)
    body = (content[start : start + 2**20] for start in range(0, len(content), 2**20)) if chunked else content
    assert ask(server, "POST", "/api/generate", body, JSON)[0] == 413


@pytest.mark.promise(29)
def test_a_body_that_is_declared_too_long_is_refused_before_it_comes(server, monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 2.0)  # after which it would be 408
    with socket.create_connection(place(server), timeout=30) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n{" % (MAX_BODY_BYTES + 1))
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


@pytest.mark.promise(26)
@pytest.mark.parametrize(
    ("style", "says"),
    [
        (bomb(5001, 5000), b"limit of 25000000"),
        (bomb(5000, 5000), b"is not an image that can be read (broken"),  # within it, and without its pixels
        (bytes(MAX_STYLE_BYTES + 1), b"a style image may have 8388608 bytes"),
        (bytes(MAX_STYLE_BYTES), b"is not an image that can be read"),
    ],
)
def test_a_style_image_is_refused_for_its_own_limits(server, style, says):
    """Whatever else would refuse it; a general limit of pixels is four times as high."""
    status, content = generate(server, style=encoded(style))
    assert status == 400
    assert says in content, content


@pytest.mark.promise(29)
def test_all_bodies_together_are_bounded(server, monkeypatch):
    monkeypatch.setattr(guard, "MAX_HELD_BYTES", 1000)
    with socket.create_connection(place(server), timeout=60) as first:
        first.sendall(POST + b"Content-Length: 5000\r\n\r\n" + b"x" * 900)
        status = None
        for _ in range(50):  # until the 900 bytes have been read
            status = generate(server, sentence="x" * 500)[0]
            if status == 429:
                break
        assert status == 429
    for _ in range(50):  # the quota comes back when the request ends
        if generate(server)[0] == 200:
            return
    raise AssertionError("what a request that broke off held is never given back")


class Fails(DemoModel):
    """A model with a fault of ours."""

    def draw(self, **values):
        raise RuntimeError("secret path /home/user/model\nsecond line")


@pytest.mark.promise(29)
def test_a_fault_of_ours_is_500_and_tells_nothing(tiny_run_with_style, monkeypatch, tally, capfd):
    monkeypatch.setattr("t2i.demo.app.DemoModel", Fails)
    with Server(Pipeline.from_pretrained(tiny_run_with_style)) as failing:
        for _ in tally(range(2)):
            status, content = generate(failing)
            assert status == 500
            assert b"secret" not in content
            assert b"Traceback" not in content
        assert ask(failing, "GET", "/")[0] == 200
    told = capfd.readouterr().err
    assert told.count("\n") == 2
    assert "t2i-demo: POST '/api/generate' failed: RuntimeError: secret path /home/user/model second line" in told


@pytest.mark.promise(26)
def test_a_message_with_half_a_character_is_sent_without_it(tiny_run_with_style, monkeypatch):
    def refusing(self, **values):
        raise t2i.ConfigError("got \ud83c")

    monkeypatch.setattr(DemoModel, "draw", refusing)
    with Server(Pipeline.from_pretrained(tiny_run_with_style)) as running:
        assert generate(running) == (400, b'{"error":"got ?"}')


def filtered(app, hosts=(b"localhost",)):
    """Ask a filtered ASGI app; the status, the body, and what was logged."""
    sent, lines = [], []
    headers = [(b"host", host) for host in hosts]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "query_string": b""}

    async def send(message):
        sent.append(message)

    asyncio.run(RequestFilter(app, "127.0.0.1", log=lines.append)(scope, None, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent), lines


@pytest.mark.promise(29)
@pytest.mark.parametrize(
    "hosts", [(), (b"localhost", b"evil.example"), (b"evil.example", b"localhost"), (b"localhost",) * 2]
)
def test_one_host_is_named(hosts):
    """The server in front refuses most of these, too."""
    status, _, lines = filtered(None, hosts)  # there is no app to ask
    assert status == 421
    assert lines == []


@pytest.mark.promise(29)
@pytest.mark.timeout(20)
def test_an_answer_that_is_not_taken_is_given_up(monkeypatch):
    monkeypatch.setattr(guard, "SEND_SECONDS", 0.05)

    async def answering(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def never(message):
        await asyncio.Event().wait()

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")], "query_string": b""}
    with pytest.raises(TimeoutError):
        asyncio.run(RequestFilter(answering, "127.0.0.1", log=lambda line: None)(scope, None, never))


@pytest.mark.promise(29)
def test_a_connection_whose_answers_are_not_taken_is_closed(server, monkeypatch):
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(connections, "STUCK_SWEEPS", 3)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(place(server))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        port, deadline = connection.getsockname()[1], time.monotonic() + 10  # the server's other limit is 20 s

        def held():
            return [each for each in list(server._server.server_state.connections) if each.client[1] == port]

        assert ask(server, "GET", "/")[0] == 200
        assert held()
        while held() and time.monotonic() < deadline:
            assert ask(server, "GET", "/")[0] == 200  # others are served meanwhile
        assert not held()


@pytest.mark.promise(29)
def test_what_the_framework_lets_through_is_500_too():
    async def raising(scope, receive, send):
        raise RuntimeError("secret of the demo")

    status, body, lines = filtered(raising)
    assert status == 500
    assert b"secret" not in body
    assert lines == ["t2i-demo: GET '/' failed: RuntimeError: secret of the demo"]


@pytest.mark.promise(29)
def test_half_requests_neither_stay_nor_keep_others_out(server, monkeypatch, tally):
    """300 connections that send half a request: the page is served meanwhile, and they are closed when their time is up."""
    monkeypatch.setattr(connections, "HEADER_SECONDS", 1.0)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.1)
    halves = [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "]
    with contextlib.ExitStack() as stack:
        held = []
        for number in tally(range(300 if len(cases(29)) > 40 else 150)):
            held.append(stack.enter_context(socket.create_connection(place(server), timeout=30)))
            held[-1].sendall(halves[number % len(halves)])
        assert ask(server, "GET", "/")[0] == 200
        assert generate(server)[0] == 200
        for each in held:
            with contextlib.suppress(ConnectionResetError):
                answer = each.recv(1000)
                assert answer == b"" or answer.startswith((b"HTTP/1.1 408", b"HTTP/1.1 400")), answer


@pytest.mark.promise(29)
def test_no_more_connections_are_held_than_are_allowed(server, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(place(server), timeout=30))
        assert ask(server, "GET", "/")[0] == 200
        assert len(server._server.server_state.connections) <= 6


@pytest.mark.promise(29)
def test_a_body_that_does_not_come_is_408(server, monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    with socket.create_connection(place(server), timeout=30) as connection:
        connection.sendall(POST + b"Content-Length: 500\r\n\r\n{")
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.mark.promise(29)
def test_a_second_half_request_on_a_connection_has_its_time_limit_too(server, monkeypatch):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.1)
    with socket.create_connection(place(server), timeout=30) as connection:
        connection.sendall(b"GET /api/model HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /api/model HTTP/1.1\r\nHost: ")
        started, answer = time.monotonic(), b""
        while more := connection.recv(10_000):
            answer += more
        assert answer.rsplit(b"HTTP/1.1 ", 1)[1].startswith(b"408")
        assert time.monotonic() - started < 20


@pytest.mark.promise(29)
def test_more_requests_than_the_queue_holds_are_told_to_try_again(tiny_run_with_style, monkeypatch):
    """Of the requests that come while the model is busy, `MAX_QUEUE` wait and the others are answered 429."""
    monkeypatch.setattr("t2i.demo.app.MAX_QUEUE", 2)
    go = threading.Event()

    class Slow(DemoModel):
        def draw(self, **values):
            assert go.wait(60)
            return super().draw(**values)

    app = application(Slow(Pipeline.from_pretrained(tiny_run_with_style)), "")

    async def request():
        found, sent = [], False

        async def receive():
            nonlocal sent
            if sent:
                await asyncio.Event().wait()
            sent = True
            return {
                "type": "http.request",
                "body": json.dumps({"sentence": RED, "count": 1}).encode(),
                "more_body": False,
            }

        async def send(message):
            if message["type"] == "http.response.start":
                found.append(message["status"])
                if message["status"] == 429:
                    go.set()

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/api/generate", "headers": headers, "query_string": b""}
        await app(scope, receive, send)
        return found[0]

    async def everyone():
        return await asyncio.gather(*(request() for _ in range(5)))

    assert sorted(asyncio.run(everyone())) == [200, 200, 429, 429, 429]


@pytest.mark.parametrize("wanted", [signal.SIGTERM, signal.SIGINT])
def test_the_demo_leaves_nothing_behind(tiny_run_with_style, tmp_path, wanted):
    """It writes nothing, so a stop by any signal leaves no folder: neither in TMPDIR nor in the working directory."""
    home = tmp_path / "home"
    home.mkdir()
    program = "import sys; sys.argv = ['t2i-demo', *sys.argv[1:]]; from t2i.cli.main import demo; demo()"
    command = [sys.executable, "-c", program, "--model", str(tiny_run_with_style), "--port", "0"]
    environment = {
        **os.environ,
        "TMPDIR": str(home),
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().split(" on ")[1].split()[0]
        style = encoded(Path(__file__).parents[2].joinpath("docs/images/blossoms.png").read_bytes())

        class There:
            pass

        There.url = url
        assert generate(There, style=style)[0] == 200
        process.send_signal(wanted)
        assert process.wait(30) in (0, 130, -signal.SIGTERM)
    assert list(home.rglob("*")) == []


@pytest.mark.promise(26)
def test_a_sentence_with_half_a_character_is_the_askers_fault(server):
    status, content = ask(server, "POST", "/api/generate", b'{"sentence": "\\ud800"}', JSON)
    assert status == 400
    assert b"half a character" in content


def test_any_language_is_read(server):
    for sentence in ("一朵红色的花，五片花瓣", "زهرة حمراء", "красный цветок", "🌻"):
        assert generate(server, sentence=sentence)[0] == 200


def test_the_package_of_the_extra_is_named_where_it_is_missing(tiny_run_with_style, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(t2i.ConfigError, match=r"t2i-demo needs uvicorn: pip install 't2i\[demo\]'"):
        Server(Pipeline.from_pretrained(tiny_run_with_style))
