"""For tests of how connections end. GATE as in process.py: a wait ends when the test says `release`."""

import os
import pathlib
import time

gate = pathlib.Path(os.environ["GATE"])
OK = [("Content-Type", "text/plain"), ("Content-Length", "2")]


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fork":
        fork()
    start_response("200 OK", OK)
    return SlowToClose() if path == "/slow-to-close" else [b"ok"]


class SlowToClose:
    """A response that the client has, while the app is not done with it."""

    def __iter__(self):
        yield b"ok"

    def close(self):
        (gate / "entered-close").touch()
        wait()
        (gate / "closed").touch()


def wait():
    while not (gate / "release").exists():
        time.sleep(0.005)


def fork():
    """A child of the app's own, which has a copy of every descriptor, and lets go of none before it ends."""
    if os.fork() == 0:
        wait()
        os._exit(0)
