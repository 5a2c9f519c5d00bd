"""Hostile requests to the demo, as tables."""

import base64
import struct
import zlib

from t2i.demo.guard import MAX_BODY_BYTES


def bomb(width, height):
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def encoded(content):
    return base64.b64encode(content).decode()


def files(path):
    """Ways to ask for a file of the machine, as values of a request: what worked on Gradio, and what might elsewhere."""
    kind = {"meta": {"_type": "gradio.FileData"}, "orig_name": "a.png", "mime_type": "image/png", "size": 5}
    return [
        str(path),
        f"file://{path}",
        f"../../../../../../..{path}",
        {"path": str(path)},
        {**kind, "path": str(path)},
        [str(path)],
        {**kind, "path": str(path), "url": f"file://{path}"},
        f"data:text/plain,{path}",
        encoded(str(path).encode()),
        encoded(b"\x89PNG\r\n\x1a\n" + str(path).encode()),
        f"@{path}",
        f"<!ENTITY x SYSTEM 'file://{path}'>",
        f"push {path}",
        encoded(f"<svg xmlns='http://www.w3.org/2000/svg'><image href='file://{path}'/></svg>".encode()),
        encoded(f"%!PS\n({path}) (r) file 99 string readstring\nshowpage".encode()),
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/environ",
    ]


VALUES = [
    None,
    True,
    -1,
    0,
    1e308,
    -0.0,
    10**30,
    "",
    " ",
    "x" * 50_000,
    "\0",
    "\ud83c",
    "🌻" * 1000,
    [],
    {},
    [[]],
    {"a": {"b": []}},
    float("nan"),
    float("inf"),
    -float("inf"),
    0.5,
    2**53,
    2**53 + 1,
    1e-320,
    "1",
    "NaN",
    {"__type__": "update", "value": 1},
    "__import__('os').system('true')",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "花" * 300,
    "\u202e\u0000\uffff",
    *files("/etc/passwd"),
]
PATHS = [
    "/file=/etc/passwd",
    "/gradio_api/file=/etc/passwd",
    "/../../../../etc/passwd",
    "/..%2f..%2fetc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/http://127.0.0.1:1/",
    "/%00",
    "/.",
    "/./",
    "/static/../../../../etc/passwd",
    "/static/page.html",
    "/page.html",
    "/api",
    "/api/",
    "/api/generate",
    "/api/generate/",
    "/api/generate/../model",
    "/api/model/",
    "/api/model?x=%00",
    "/API/MODEL",
    "/docs",
    "/openapi.json",
    "/%",
    "/%zz",
    "/%ff%fe",
    "/" + "a" * 5000,
    "/?" + "b" * 5000,
    "/?x=%f0%28",
    "/favicon.ico",
    "/.git/config",
    "/model.safetensors",
    "/config.json",
    "/assets/..%5c..%5cconfig.json",
    "/;/etc/passwd",
    "/?path=/etc/passwd",
    "/api/model;x=1",
]
BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"1",
    b'"a"',
    b"\xff\xfe",
    b"{}",
    b"[" * 30_000,
    b'{"sentence":' * 10_000,
    b'{"sentence": "a"',
    b"\0" * 100,
    b'{"sentence": "a", "nothing": 1}',
    b'{"sentence": "a", "style": "%%%"}',
    b'{"sentence": "a", "seed": ' + b"9" * 5000 + b"}",
    b'{"sentence": "a", "self": 1}',
    b'{"sentence": "a", "count": 1e999}',
    b'{"sentence": [' + b"0," * 20_000 + b"0]}",
    b'{"sentence": "a", "other": {"a":' + b"[" * 900 + b"]" * 900 + b"}}",
    b"sentence=a&count=1",
    b"x" * (MAX_BODY_BYTES + 1),
    b'{"sentence": "\\ud800"}',
    '{"sentence": "a"}'.encode("utf-16"),
    '{"sentence": "花", "count": 17}'.encode(),
]
POST = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
RAW = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"\0" * 100,
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    POST + b"Content-Length: -5\r\n\r\n",
    POST + b"Content-Length: 99999999999\r\n\r\n{}",
    POST + b"Content-Length: 1\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n",
    POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: gzip\r\n\r\n{}",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"get / http/1.1\r\n\r\n",
    b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: loc\xffalhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
    b"GET / HTTP/1.1\nHost: localhost\n\n",
    b"GET  /  HTTP/1.1\r\n\r\n",
]
HEADERS = [
    {"Range": "bytes=9999999999-1"},
    {"Cookie": "a=" + "b" * 3000},
    {"Accept-Language": "x" * 2000},
    {"Content-Type": "\xff"},
    {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "javascript"},
    {"Expect": "100-continue"},
    {"Accept-Encoding": "gzip;q=-1"},
    {"Authorization": "Basic !!!"},
    {"If-Modified-Since": "never"},
    {"Content-Encoding": "gzip"},
    {"X-HTTP-Method-Override": "PUT"},
]
FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1.nip.io"},
    {"Host": ""},
    {"Host": "localhost@evil"},
    {"Host": "[::ffff:7f00:1]:80"},
    {"Host": "127.0.0.1:99999999"},
    {"Host": "localhost, evil.example"},
    {"Host": "evil.example:7860"},
    {"Host": "10.0.0.1"},
    {"Host": "127.1"},
    {"Host": "2130706433"},
    {"Host": "localhost/"},
    {"Host": "local host"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "file://"},
    {"Origin": "http://localhost"},
    {"Origin": "http://127.0.0.1.evil.example"},
    {"Origin": "chrome-extension://abc"},
    {"Origin": "http://localhost:1"},
    {"Host": "evil.example", "Origin": "http://evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]
