"""For tests of clients that are slow, silent, greedy or gone: small and endless answers, and what became of each.

GATE names a folder where the app leaves files: `entered-N` when a request is in `/wait`, `began-N` and `closed-N` when
a stream begins and when its close() was called, `exit-N` when its generator saw GeneratorExit.
"""

import itertools
import os
import pathlib
import time

gate = pathlib.Path(os.environ.get("GATE", "."))
serial = itertools.count()
calls = 0
blocks = {}


def application(environ, start_response):
    global calls
    calls += 1
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    return PATHS[path](environ, start_response, query)


def ok(environ, start_response, query):
    return text(start_response, "ok")


def count(environ, start_response, query):
    """How often the app has been called, this call left out."""
    return text(start_response, calls - 1)


def read(environ, start_response, query):
    """The length of the body, read in blocks."""
    return text(start_response, sum(len(block) for block in iter(lambda: environ["wsgi.input"].read(65536), b"")))


def wait(environ, start_response, query):
    (gate / f"entered-{next(serial)}").touch()
    while not (gate / "release").exists():
        time.sleep(0.005)
    return text(start_response, "waited")


def big(environ, start_response, query):
    """One block of so many bytes, the same object every time."""
    size = int(query)
    if size not in blocks:
        blocks[size] = b"x" * size
    block = blocks[size]
    start_response("200 OK", [("Content-Length", query)])
    return [block]


def iterated(environ, start_response, query):
    """The same out of an iterator, as frameworks give it."""
    return iter(big(environ, start_response, query))


class Stream:
    """So many blocks of 64 kB, or so many seconds between them."""

    def __init__(self, number, count, pause):
        self.number = number
        self.blocks = self.make(count, pause)
        (gate / f"began-{number}").touch()

    def make(self, count, pause):
        block = b"y" * 65536
        try:
            for _ in range(count):
                yield block
                if pause:
                    time.sleep(pause)
        except GeneratorExit:
            (gate / f"exit-{self.number}").touch()
            raise

    def __iter__(self):
        return self.blocks

    def close(self):
        self.blocks.close()
        (gate / f"closed-{self.number}").touch(exist_ok=False)


def stream(environ, start_response, query):
    """`count` or `count&seconds`"""
    count, _, pause = query.partition("&")
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return Stream(next(serial), int(count), float(pause or 0))


def file(environ, start_response, query):
    """The file of that name in the gate."""
    opened = open(gate / query, "rb")
    start_response("200 OK", [("Content-Length", str(os.fstat(opened.fileno()).st_size))])
    return environ["wsgi.file_wrapper"](opened)


def open_files(environ, start_response, query):
    """So many files at once."""
    files = [open(__file__) for _ in range(int(query))]
    for file in files:
        file.close()
    return text(start_response, len(files))


kept = []


def keep_files(environ, start_response, query):
    """Opens so many files for good."""
    kept.extend(open(__file__) for _ in range(int(query)))
    return text(start_response, len(kept))


def text(start_response, value):
    data = str(value).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return [data]


PATHS = {
    "/": ok,
    "/calls": count,
    "/read": read,
    "/wait": wait,
    "/big": big,
    "/iterated": iterated,
    "/stream": stream,
    "/file": file,
    "/open": open_files,
    "/keep": keep_files,
}
