"""write() where it has no business to be called: the path says where. /outcomes tells what the callers got for it."""

import json
import tempfile
import threading

PLAIN = ("Content-Type", "text/plain")
OK = [PLAIN, ("Content-Length", "2")]
outcomes = {}
kept = []


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    if name == "outcomes":
        body = json.dumps(outcomes).encode()
        start_response("200 OK", [PLAIN, ("Content-Length", str(len(body)))])
        return [body]
    return PATHS[name](lambda function, *arguments: attempt(name, function, *arguments), environ, start_response)


def attempt(name, function, *arguments):
    """Calls what must not be called now."""
    try:
        function(*(arguments or (b"STRAY",)))
    except Exception as error:
        outcomes[name] = type(error).__name__
    else:
        outcomes[name] = "done"


class Closing:
    """An iterable of `blocks` that does something when it is closed."""

    def __init__(self, blocks, close):
        self.blocks, self.close = blocks, close

    def __iter__(self):
        return iter(self.blocks)


class Headers:
    """The headers of a plain response, but before they are given something is done."""

    def __init__(self, action):
        self.action = action

    def __iter__(self):
        self.action()
        return iter(OK)


def refused_second_start(attempt, environ, start_response):
    write = start_response("200 OK", OK)
    try:
        start_response("nonsense", OK, (ValueError, ValueError("the app's own"), None))
    except ValueError:
        attempt(write)
    start_response("200 OK", OK)
    return [b"ok"]


def refused_second_start_and_nothing_else(attempt, environ, start_response):
    write = start_response("200 OK", OK)
    try:
        start_response("200 OK", [("bad name", "")], (ValueError, ValueError("the app's own"), None))
    except ValueError:
        attempt(write)
    return [b"ok"]


def close_in_chunks(attempt, environ, start_response):
    write = start_response("200 OK", [PLAIN])
    return Closing([b"o", b"k"], lambda: attempt(write))


def close_with_length(attempt, environ, start_response):
    write = start_response("200 OK", OK)
    return Closing([b"ok"], lambda: attempt(write))


def close_of_nothing(attempt, environ, start_response):
    write = start_response("200 OK", [PLAIN])
    return Closing([], lambda: attempt(write))


def close_of_a_file(attempt, environ, start_response):
    file = tempfile.TemporaryFile()
    file.write(b"ok")
    file.seek(0)
    write = start_response("200 OK", OK)
    file_wrapper = environ["wsgi.file_wrapper"](file)
    return Closing(file_wrapper, lambda: attempt(write))


class File:
    """A file that the kernel can send."""

    def __init__(self, close):
        self.file = tempfile.TemporaryFile()
        self.file.write(b"ok")
        self.file.seek(0)
        self.fileno, self.read, self.tell, self.seek = self.file.fileno, self.file.read, self.file.tell, self.file.seek
        self.close = close


def close_of_a_sent_file(attempt, environ, start_response):
    write = start_response("200 OK", OK)
    return environ["wsgi.file_wrapper"](File(lambda: attempt(write)))


def close_after_an_error(attempt, environ, start_response):
    write = start_response("200 OK", OK)

    def blocks():
        raise ValueError("raised before the first block")
        yield

    return Closing(blocks(), lambda: attempt(write))


def start_in_close(attempt, environ, start_response):
    start_response("200 OK", OK)
    return Closing([b"ok"], lambda: attempt(start_response, "200 OK", OK))


def headers(attempt, environ, start_response):
    write = start_response("200 OK", OK)
    start_response("200 OK", Headers(lambda: attempt(write)), (ValueError, ValueError("the app's own"), None))
    return [b"ok"]


def headers_in_a_thread(attempt, environ, start_response):
    write = start_response("200 OK", OK)

    def action():
        thread = threading.Thread(target=attempt, args=(write,))
        thread.start()
        thread.join()

    start_response("200 OK", Headers(action), (ValueError, ValueError("the app's own"), None))
    return [b"ok"]


def start_in_headers(attempt, environ, start_response):
    start_response("200 OK", Headers(lambda: attempt(start_response, "404 Not Found", OK)))
    return [b"ok"]


def keep(attempt, environ, start_response):
    write = start_response("200 OK", OK)
    kept.append(write)
    attempt(write, b"ok")
    return []


def kept_from_earlier(attempt, environ, start_response):
    attempt(kept[-1])
    start_response("200 OK", OK)
    attempt(kept[-1])
    return [b"ok"]


def keep_unwritten(attempt, environ, start_response):
    kept.append(start_response("200 OK", OK))
    return [b"ok"]


PATHS = {name.replace("_", "-"): value for name, value in globals().items() if getattr(value, "__code__", None)}
