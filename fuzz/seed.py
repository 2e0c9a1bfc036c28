#!/usr/bin/env python3
"""Makes an initial corpus from the rows of tests/data/http-cases.json: fuzz/seed.py FOLDER.

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


def part(text: str | tuple[str, int]) -> bytes:
    run, times = (text, 1) if isinstance(text, str) else text
    return run.encode("latin-1") * times


def write(folder: str, target: str, number: int, stream: bytes, flags: int = 0) -> None:
    data = bytes([flags]) + struct.pack(">H", number * 97 % 65536) + stream
    inputs = pathlib.Path(folder, target)
    inputs.mkdir(parents=True, exist_ok=True)
    (inputs / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)


main(sys.argv[1])
