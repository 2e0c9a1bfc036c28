"""Short responses to requests that come together.

GATE as in process.py: what waits goes on when the test says `release`.
"""

import contextlib
import itertools
import os
import pathlib
import signal
import socket
import stat
import struct
import time

gate = pathlib.Path(os.environ["GATE"])
serial = itertools.count()


def application(environ, start_response):
    body = PATHS[environ["PATH_INFO"]](environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return Blocks(body, environ["PATH_INFO"] == "/wait-in-close")


class Blocks:
    """One block out of an iterator, as frameworks give it."""

    def __init__(self, body, waits):
        self.body, self.waits = body, waits

    def __iter__(self):
        yield self.body

    def close(self):
        if self.waits:
            wait("")


def wait(query):
    (gate / f"entered-{next(serial)}").touch()
    while not (gate / "release").exists():
        time.sleep(0.005)
    return b"waited"


def interrupt(query):
    with contextlib.suppress(SystemExit):
        signal.raise_signal(signal.SIGINT)
    return b"interrupted"


def segments(query):
    """How many segments with data have been sent to the client with that port (`tcpi_data_segs_out`, linux/tcp.h)."""
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as connection:
                if connection.getpeername()[1:] == (int(query),):
                    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    return str(struct.unpack_from("I", info, 156)[0]).encode()
        except OSError:
            pass
    return b"nobody"


PATHS = {
    "/": lambda query: b"ok",
    "/wait": wait,
    "/wait-in-close": lambda query: b"before the wait",
    "/interrupt": interrupt,
    "/segments": segments,
}
