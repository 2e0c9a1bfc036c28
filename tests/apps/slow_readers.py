"""Responses that are longer than what a client takes, and a count of how far the application has come with them.

GATE as in process.py: a file `closed-N` for each result that was closed.
"""

import itertools
import os
import pathlib
import tempfile
import threading
import time

gate = pathlib.Path(os.environ["GATE"])
BLOCK = b"x" * 65536
COUNT = 64
WHOLE = BLOCK * COUNT

serial = itertools.count()
made = 0
lock = threading.Lock()


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/made":
        return answer(start_response, b"%d" % made)
    if path not in PATHS:
        return answer(start_response, b"ok")
    return PATHS[path](start_response)


def answer(start_response, body):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def count():
    global made
    with lock:
        made += 1


class Blocks:
    """Four megabytes in blocks."""

    def __iter__(self):
        for _ in range(COUNT):
            count()
            yield BLOCK

    def close(self):
        (gate / f"closed-{os.getpid()}-{next(serial)}").touch()


def stream(start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(COUNT * len(BLOCK)))])
    return Blocks()


def live(start_response):
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no")])
    return Blocks()


def write(start_response):
    send = start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(COUNT * len(BLOCK)))])
    for _ in range(COUNT):
        count()
        send(BLOCK)
    return []


def whole(start_response):
    return answer(start_response, WHOLE)


def events(start_response):
    """An event at once, and the next when the test says so."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    yield b"data: first\n\n"
    while not (gate / "release").exists():
        time.sleep(0.005)
    yield b"data: last\n\n"


def paced(start_response):
    """Blocks that are longer than what TLS takes at once; the next comes when the test says so."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(6 * len(BLOCK)))])
    for number in range(3):
        yield BLOCK * 2
        while not (gate / f"go-{number}").exists():
            time.sleep(0.005)


def drip(start_response):
    """A live response of short blocks, for ever."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Accel-Buffering", "no")])
    return Endless()


class Endless:
    def __iter__(self):
        while True:
            yield BLOCK[:8192]

    def close(self):
        (gate / f"closed-{os.getpid()}-{next(serial)}").touch()


def spools(start_response):
    """How many spool files this process has open."""
    here = pathlib.Path(tempfile.gettempdir())
    links = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if name_is_open(name)]
    spools = [link for link in links if link.startswith(str(here)) and link.endswith("(deleted)")]
    return answer(start_response, b"%d" % len(spools))


def name_is_open(name):
    return os.path.lexists(f"/proc/self/fd/{name}")


PATHS = {
    "/stream": stream,
    "/live": live,
    "/write": write,
    "/whole": whole,
    "/events": events,
    "/paced": paced,
    "/drip": drip,
    "/spools": spools,
}
