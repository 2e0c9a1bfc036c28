"""Several threads on one wsgi.input. GATE as in process.py."""

import contextlib
import itertools
import os
import pathlib
import threading
import time

serial = itertools.count()
gate = pathlib.Path(os.environ["GATE"])


def application(environ, start_response):
    path = environ["PATH_INFO"]
    body = PATHS[path](environ, start_response) if path in PATHS else b"ok"
    if not isinstance(body, bytes):
        return body
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def share(environ, start_response):
    """Lines in this thread, blocks and lines in others: how much they read together, and how many reads fell short."""
    source, reads = environ["wsgi.input"], []

    def read_on(method, *arguments):
        with contextlib.suppress(StopIteration):
            while part := getattr(source, method)(*arguments):
                reads.append((method, part))

    threads = [threading.Thread(target=read_on, args=how) for how in (("read", 900), ("__next__",))]
    for thread in threads:
        thread.start()
    read_on("readline")
    for thread in threads:
        thread.join()
    short = [part for method, part in reads if not is_whole(method, part)]
    return b"%d bytes, %d short" % (sum(len(part) for _, part in reads), len(short))


def is_whole(method, part):
    return len(part) == 900 if method == "read" else part.endswith(b"\n")


def leave_readers(environ):
    """Two threads that read on: one waits for the client, the other for that one."""
    source = environ["wsgi.input"]

    def read():
        try:
            source.read()
        except OSError:
            (gate / f"ended-{next(serial)}").touch()

    for _ in range(2):
        threading.Thread(target=read).start()
    # Nothing tells that they wait; should they not yet, all is well anyway.
    time.sleep(0.1)


def leave_and_return(environ, start_response):
    leave_readers(environ)
    return b"answer"


def leave_and_write(environ, start_response):
    leave_readers(environ)
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"ans")
    write(b"wer")
    return []


def leave_and_yield(environ, start_response):
    leave_readers(environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (block for block in (b"ans", b"wer"))


def leave_and_raise(environ, start_response):
    leave_readers(environ)
    raise ValueError("the app's own")


PATHS = {
    "/share": share,
    "/leave-and-return": leave_and_return,
    "/leave-and-write": leave_and_write,
    "/leave-and-yield": leave_and_yield,
    "/leave-and-raise": leave_and_raise,
}
