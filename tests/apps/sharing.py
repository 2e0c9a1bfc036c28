"""For tests of what several threads and workers share: who serves, and what threads of the app may do to a request."""

import contextlib
import os
import pathlib
import threading
import time

gate = pathlib.Path(os.environ.get("GATE", "."))
barrier = threading.Barrier(3)


def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/wait":
        (gate / f"entered-{os.getpid()}-{threading.get_ident()}").touch()
        while not (gate / "release").exists():
            time.sleep(0.005)
    elif path == "/length":
        text = f"{os.getpid()} {len(environ['wsgi.input'].read())}"
        start_response("200 OK", [("Content-Length", str(len(text)))])
        return [text.encode()]
    elif path == "/meet":
        # Passes only if three requests are in the app at once.
        barrier.wait(timeout=20)
    elif path == "/blocks":
        return blocks(start_response)
    elif path == "/big":
        body = b"x" * int(query)
        start_response("200 OK", [("Content-Length", query)])
        return [body]
    elif path == "/leave-a-reader":
        threading.Thread(target=environ["wsgi.input"].read, daemon=True).start()
        time.sleep(0.1)
    elif path == "/bad-second-start":
        start_response("200 OK", [("Content-Type", "text/plain")])
        with contextlib.suppress(ValueError):
            start_response("nonsense", [], (ValueError, ValueError("the app's own"), None))
        return [b"body"]
    me = f"{os.getpid()} {threading.current_thread().name} {environ['wsgi.multithread']}"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(me)))])
    return [me.encode()]


def blocks(start_response):
    """A block larger than a socket's buffer, then nothing until the test says so."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"x" * 1_500_000
    while not (gate / "release").exists():
        time.sleep(0.005)
    yield b"y"
