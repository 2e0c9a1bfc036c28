"""Responses whose blocks come one right behind the other, and then nothing for a while.

GATE as in process.py: a pause ends when the test says `release`.
"""

import os
import pathlib
import time

gate = pathlib.Path(os.environ["GATE"])
LONG = 20_000_000


def application(environ, start_response):
    path = environ["PATH_INFO"]
    length = [("Content-Length", str(LONG))] if path == "/long-before-pause" else []
    start_response("200 OK", [("Content-Type", "text/plain"), *length])
    return PATHS[path](environ)


def blocks(name):
    for number in range(20):
        yield b"%s %d\n" % (name, number)


def wait():
    (gate / "entered-1").touch()
    while not (gate / "release").exists():
        time.sleep(0.005)


def pause(environ):
    yield from blocks(b"before")
    # Long enough for the server to look after this response no more.
    time.sleep(0.05)
    yield from blocks(b"again")
    wait()
    yield from blocks(b"after")


def pause_in_close(environ):
    class Blocks:
        def __iter__(self):
            return blocks(b"all")

        def close(self):
            wait()

    return Blocks()


def long_before_pause(environ):
    """More than the kernel takes at once, all of it in one block, as its Content-Length says."""
    yield b"x" * LONG
    wait()


def pause_in_input(environ):
    yield from blocks(b"before")
    yield b"%d bytes\n" % len(environ["wsgi.input"].read())


def raises(environ):
    yield from blocks(b"before")
    raise ValueError("raised behind some blocks")


def crowd(environ):
    """A million blocks of one byte, each of which the client gets in a chunk of its own."""
    return (b"x" for _ in range(1_000_000))


def flood(environ):
    """More than the kernel takes for a client that does not read."""
    return (b"%07d\n" % number * 100 for number in range(10_000))


def sizes(environ):
    """Blocks of every kind of length, and the number of each as its bytes."""
    for number in range(200):
        yield bytes([number]) * (1, 700, 9_000, 40_000)[number % 4]


PATHS = {
    "/pause": pause,
    "/pause-in-close": pause_in_close,
    "/long-before-pause": long_before_pause,
    "/pause-in-input": pause_in_input,
    "/raises": raises,
    "/crowd": crowd,
    "/flood": flood,
    "/sizes": sizes,
}
