"""What a request sees and does in a worker of class gevent."""

import hashlib
import json
import os
import pathlib
import socket
import threading
import time
from time import sleep

import gevent
from gevent import monkey
from greenlet import GreenletExit, greenlet

BLOCK = b"x" * 65536
finished = []
running = []


def about(environ):
    current = gevent.getcurrent()
    seen = {
        "greenlet": type(current).__name__,
        "thread": type(threading.current_thread()).__name__,
        "multithread": environ["wsgi.multithread"],
        "socket": monkey.is_object_patched("socket", "socket"),
        "by name": sleep is gevent.sleep,
        "by module": time.sleep is gevent.sleep,
        "plain socket": socket.socket.__module__,
        "running": sum(1 for pooled in current_pool() if pooled),
    }
    return json.dumps(seen).encode()


def current_pool():
    import gc

    return [found for found in gc.get_objects() if isinstance(found, greenlet)]


def stream(count):
    try:
        for _ in range(count):
            yield BLOCK
    finally:
        finished.append(count)


def answer(environ):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path in ("/sleep", "/hog"):
        pathlib.Path(os.environ["GATE"], f"entered-{time.monotonic_ns()}").touch()
    if path == "/sleep":
        sleep(float(query))
    elif path == "/stubborn":
        running.append(path)
        try:
            sleep(60)
        finally:
            # Longer than the server waits for it.
            sleep(1)
    elif path == "/running":
        return str(len(running)).encode()
    elif path == "/mark":
        # Two sleeps, and what was asked for in between.
        mark, seconds = query.split(",")
        sleep(float(seconds))
        assert environ["QUERY_STRING"] == query
        time.sleep(float(seconds))
        return mark.encode()
    elif path == "/body":
        body = environ["wsgi.input"].read()
        return f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()
    elif path == "/lines":
        return str(sum(1 for _ in environ["wsgi.input"])).encode()
    elif path == "/hog":
        end = time.monotonic() + float(query)
        while time.monotonic() < end:
            pass
    elif path == "/timeout":
        with gevent.Timeout(0.05):
            sleep(30)
    elif path == "/exit":
        raise GreenletExit
    elif path == "/kill":
        gevent.getcurrent().kill()
    elif path == "/stop":
        raise StopIteration
    elif path == "/raise":
        raise RuntimeError("as asked")
    elif path == "/about":
        return about(environ)
    elif path == "/finished":
        return str(len(finished)).encode()
    return b"green"


class SlowClose:
    """A result whose `close()` hangs, and if it is late, what it gives as well."""

    def __init__(self, late):
        self.late = late

    def __iter__(self):
        if self.late:
            sleep(60)
        yield b"green"

    def close(self):
        sleep(60)


def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow-close":
        start_response("200 OK", [("Content-Length", "5")])
        return SlowClose(environ["QUERY_STRING"] == "late")
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return stream(int(environ["QUERY_STRING"]))
    if environ["PATH_INFO"] == "/write":
        write = start_response("200 OK", [("Content-Type", "application/octet-stream")])
        for _ in range(int(environ["QUERY_STRING"])):
            write(BLOCK)
        return []
    body = answer(environ)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
