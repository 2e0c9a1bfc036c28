#!/usr/bin/env python3
"""Makes an initial corpus from the rows of tests/data/http-cases.json, and from packets of uwsgi: fuzz/seed.py FOLDER.

Each input is a byte of settings, two that choose the segments, and the stream (see harness.rs).
"""

import hashlib
import json
import pathlib
import struct
import sys

here = pathlib.Path(__file__).parent
V2 = b"\r\n\r\n\0\r\nQUIT\n"
PROXY = [
    b"PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\n",
    b"PROXY TCP6 ::1 ::2 1 2\r\n",
    b"PROXY UNKNOWN ff\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 1\r\n",
    V2 + b"\x21\x11\x00\x0c" + bytes(range(12)),
    V2 + b"\x21\x21\x00\x24" + bytes(range(36)),
    V2 + b"\x20\x00\x00\x00",
    V2 + b"\x21\x00\x00\x03\x04\x00\x00",
]

# What nginx sends, and what a variable can be besides.
NGINX = {
    "QUERY_STRING": "a=1&b=%20x",
    "REQUEST_METHOD": "POST",
    "CONTENT_TYPE": "text/plain",
    "CONTENT_LENGTH": "5",
    "REQUEST_URI": "/caf%C3%A9?a=1&b=%20x",
    "PATH_INFO": "/caf\xc3\xa9",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REQUEST_SCHEME": "http",
    "REMOTE_ADDR": "192.0.2.1",
    "REMOTE_PORT": "40000",
    "HTTP_HOST": "a",
}
PACKETS = [
    [],
    list(NGINX.items()),
    [("PATH_INFO", "/100% a?b#c"), ("QUERY_STRING", "d=e")],
    [("REQUEST_METHOD", "get x")],
    [("REQUEST_METHOD", "HEAD"), ("REQUEST_METHOD", "GET"), ("CONTENT_LENGTH", "5"), ("CONTENT_LENGTH", "")],
    [("CONTENT_LENGTH", "-1")],
    [("CONTENT_LENGTH", "9223372036854775808")],
    [("HTTP_X_A", "1"), ("HTTP_X-A", " 2 "), ("HTTP_COOKIE", "a=1"), ("HTTP_COOKIE", "b=2")],
    [("HTTP_PROXY", "x"), ("HTTP_TRANSFER_ENCODING", "chunked"), ("HTTP_CONTENT_LENGTH", "9")],
    [("HTTP_X", "a\r\nb")],
    [("HTTP_", "a")],
    [("", "a")],
    [("wsgi.input", "x"), ("wsgi.url_scheme", "https"), ("gunicorn.socket", "x")],
    [("HTTPS", "on"), ("UWSGI_SCHEME", "http"), ("SCRIPT_NAME", "/app"), ("REMOTE_USER", "alice")],
    [("a", "")] * 30,
]


def main(folder: str) -> None:
    for number, case in enumerate(json.loads((here / "../tests/data/http-cases.json").read_text())["cases"]):
        stream = b"".join(part(text) for step in case["steps"] for text in step.get("send", []))[:4000]
        write(folder, "head", number, stream)
        write(folder, "connection", number, stream)
        write(folder, "connection", number, PROXY[number % len(PROXY)] + stream, flags=0x80)
        head, _, body = stream.partition(b"\r\n\r\n")
        if b"hunked" in head and body:
            write(folder, "chunked", number, body)
        write(folder, "response", number, stream[:200], flags=number % 128)
    for number, header in enumerate(PROXY):
        write(folder, "proxy", number, header, flags=2)
    for number, variables in enumerate(PACKETS):
        packet = frame(b"".join(sized(name) + sized(value) for name, value in variables))
        write(folder, "uwsgi", number, packet + b"hello")
        write(folder, "uwsgi", number * 100, packet[: number * 10 + 3], flags=16)
    for number, stream in enumerate([b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"\x05\x00\x00\x00"]):
        write(folder, "uwsgi", number, stream)
        write(folder, "uwsgi", number, stream, flags=0x80)


def frame(pairs: bytes) -> bytes:
    return struct.pack("<BHB", 0, len(pairs), 0) + pairs


def sized(text: str) -> bytes:
    return struct.pack("<H", len(text)) + text.encode("latin-1")


def part(text: str | tuple[str, int]) -> bytes:
    run, times = (text, 1) if isinstance(text, str) else text
    return run.encode("latin-1") * times


def write(folder: str, target: str, number: int, stream: bytes, flags: int = 0) -> None:
    data = bytes([flags]) + struct.pack(">H", number * 97 % 65536) + stream
    inputs = pathlib.Path(folder, target)
    inputs.mkdir(parents=True, exist_ok=True)
    (inputs / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)


main(sys.argv[1])
