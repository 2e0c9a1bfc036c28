"""What apps do to their responses, well or badly: a path for each row of tests/response_cases.rs.

`/closed` answers how often close() was called on the iterable of each row. `/ok` is a plain answer.
"""

import functools
import io
import json
import sys
import tempfile

ROWS = {}
closed = {}

OK = "200 OK"
TYPE = ("Content-Type", "text/plain")


def length(number):
    return ("Content-Length", str(number))


def row(name):
    def keep(function):
        ROWS["/" + name] = function
        return function

    return keep


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/ok":
        start_response(OK, [TYPE, length(2)])
        return [b"ok"]
    if path.startswith("/same/"):
        return same(path.removeprefix("/same/"), start_response)
    if path == "/closed":
        data = json.dumps(closed).encode()
        start_response(OK, [TYPE, length(len(data))])
        return [data]
    return ROWS[path](environ, start_response)


# The very same objects in every response, in different company: NAME says what comes of them.
SAME = {
    "plain": (OK, [TYPE, length(2)]),
    "other-order": (OK, [length(2), TYPE]),
    "no-content": ("204 No Content", [TYPE, length(2)]),
    "twice": (OK, [TYPE, length(2), length(2)]),
    "other-text": ("200 Fine", [TYPE, length(2)]),
    "raises": (OK, [TYPE, length(2)]),
}
SAME["twice"][1][2] = SAME["twice"][1][1]


def same(name, start_response):
    status, headers = SAME[name]
    start_response(status, headers)
    if name == "raises":
        raise RuntimeError("after its start")
    return [] if name == "no-content" else [b"ok"]


class Blocks:
    """An iterable which counts its close() calls under the row's name."""

    def __init__(self, name, blocks):
        self.name, self.blocks = name, blocks
        closed.setdefault(name, 0)

    def __iter__(self):
        return iter(self.blocks)

    def close(self):
        closed[self.name] += 1


def fixed(name, status, headers, blocks):
    """A row that starts the response at once and gives these blocks."""

    def app(environ, start_response):
        start_response(status, list(headers))
        return Blocks(name, blocks)

    ROWS["/" + name] = app


fixed("baseline", OK, [TYPE, length(2)], [b"ok"])
fixed("short-body", OK, [TYPE, length(10)], [b"hello"])
fixed("long-body-in-blocks", OK, [TYPE, length(5)], [b"hello", b"world"])
fixed("long-body-in-one-block", OK, [TYPE, length(5)], [b"helloworld"])
fixed("one-block", OK, [TYPE], [b"hello"])
fixed("two-blocks", OK, [TYPE], [b"hello", b"world"])
fixed("empty-block-inside", OK, [TYPE], [b"hello", b"", b"world"])
fixed("no-blocks", OK, [TYPE], [])
fixed("str-block", OK, [TYPE], ["hello"])
fixed("bytearray-block", OK, [TYPE], [bytearray(b"hello")])
fixed("memoryview-block", OK, [TYPE], [memoryview(b"hello")])
fixed("none-block", OK, [TYPE], [None])
fixed("204-body", "204 No Content", [], [b"hello"])
fixed("204-length-body", "204 No Content", [length(5)], [b"hello"])
fixed("304-length-body", "304 Not Modified", [length(5)], [b"hello"])
fixed("205-body", "205 Reset Content", [TYPE], [b"hello"])
fixed("status-100", "100 Continue", [], [])
fixed("status-101", "101 Switching Protocols", [], [])
fixed("crlf-in-value", OK, [TYPE, ("X-A", "a\r\nX-Evil: 1")], [b"hello"])
fixed("lf-in-value", OK, [TYPE, ("X-A", "a\nX-Evil: 1")], [b"hello"])
fixed("nul-in-value", OK, [TYPE, ("X-A", "a\0b")], [b"hello"])
fixed("crlf-in-name", OK, [TYPE, ("X-A\r\nX-Evil", "1")], [b"hello"])
fixed("space-in-name", OK, [TYPE, ("X A", "1")], [b"hello"])
fixed("empty-name", OK, [TYPE, ("", "1")], [b"hello"])
fixed("crlf-in-status", "200 OK\r\nX-Evil: 1", [TYPE], [b"hello"])
fixed("int-status", 200, [TYPE], [b"hello"])
fixed("bare-status", "200", [TYPE], [b"hello"])
fixed("two-digit-status", "20 OK", [TYPE], [b"hello"])
fixed("status-999", "999 Odd", [TYPE], [b"hello"])
fixed("bytes-header", OK, [TYPE, (b"X-A", b"1")], [b"hello"])
fixed("int-header", OK, [TYPE, ("X-A", 1)], [b"hello"])
fixed("latin1-header", OK, [TYPE, ("X-A", "\xe9")], [b"hello"])
fixed("euro-header", OK, [TYPE, ("X-A", "\u20ac")], [b"hello"])
fixed("hop-by-hop", OK, [TYPE, ("Connection", "close"), ("Keep-Alive", "timeout=5"), ("X-A", "1")], [b"hello"])
fixed("own-chunks", OK, [TYPE, ("Transfer-Encoding", "chunked")], [b"5\r\nhello\r\n0\r\n\r\n"])
fixed("two-lengths", OK, [TYPE, length(5), length(2)], [b"hello"])
fixed("length-abc", OK, [TYPE, ("Content-Length", "abc")], [b"hello"])
fixed("length-negative", OK, [TYPE, ("Content-Length", "-5")], [b"hello"])
fixed(
    "kept-headers",
    OK,
    [TYPE, ("Set-Cookie", "b=2"), ("X-A", "1"), ("x-a", "2"), ("Set-Cookie", "a=1"), ("X-Empty", "")],
    [b"hello"],
)
fixed("date-and-server", OK, [TYPE, ("Date", "never"), ("Server", "other")], [b"hello"])
fixed("bytes-subclass", OK, [TYPE], [type("Sub", (bytes,), {})(b"hello")])
fixed("str-subclass-header", OK, [TYPE, (type("S", (str,), {})("X-A"), type("S", (str,), {})("1"))], [b"hello"])


@row("headers-as-tuple")
def headers_as_tuple(environ, start_response):
    start_response(OK, (TYPE, ("X-A", "1")))
    return [b"hello"]


@row("bytes-as-iterable")
def bytes_as_iterable(environ, start_response):
    start_response(OK, [TYPE])
    return b"hello"


@row("returns-none")
def returns_none(environ, start_response):
    start_response(OK, [TYPE])


@row("never-starts")
def never_starts(environ, start_response):
    return Blocks("never-starts", [b"hello"])


@row("never-starts-empty")
def never_starts_empty(environ, start_response):
    return Blocks("never-starts-empty", [])


@row("starts-inside-generator")
def starts_inside_generator(environ, start_response):
    def blocks():
        start_response(OK, [TYPE])
        yield b"hello"

    return Blocks("starts-inside-generator", blocks())


@row("raises-early")
def raises_early(environ, start_response):
    raise ValueError("raised before start_response")


@row("raises-after-start")
def raises_after_start(environ, start_response):
    start_response(OK, [TYPE])
    raise ValueError("raised after start_response")


@row("raises-at-first-block")
def raises_at_first_block(environ, start_response):
    def blocks():
        raise ValueError("raised at the first block")
        yield b""

    start_response(OK, [TYPE])
    return Blocks("raises-at-first-block", blocks())


@row("raises-after-empty-block")
def raises_after_empty_block(environ, start_response):
    def blocks():
        yield b""
        raise ValueError("raised after an empty block")

    start_response(OK, [TYPE])
    return Blocks("raises-after-empty-block", blocks())


def raise_at_second_block(name, headers):
    def app(environ, start_response):
        def blocks():
            yield b"hello"
            raise ValueError("raised at the second block")

        start_response(OK, headers)
        return Blocks(name, blocks())

    ROWS["/" + name] = app


raise_at_second_block("raises-at-second-block-chunked", [TYPE])
raise_at_second_block("raises-at-second-block-length", [TYPE, length(10)])


@row("replaced-by-exc-info")
def replaced_by_exc_info(environ, start_response):
    start_response(OK, [TYPE, ("X-Old", "1")])
    try:
        raise ValueError("replaced")
    except ValueError:
        start_response("500 Oops", [TYPE, ("X-New", "1")], sys.exc_info())
    return [b"oops"]


@row("exc-info-after-write")
def exc_info_after_write(environ, start_response):
    write = start_response(OK, [TYPE])
    write(b"hello")
    try:
        raise ValueError("too late to replace")
    except ValueError:
        start_response("500 Oops", [TYPE], sys.exc_info())
    return [b"never"]


@row("starts-twice")
def starts_twice(environ, start_response):
    start_response(OK, [TYPE])
    start_response("201 Created", [TYPE])
    return [b"hello"]


@row("write")
def write_and_blocks(environ, start_response):
    write = start_response(OK, [TYPE])
    write(b"one ")
    write(b"two ")
    return Blocks("write", [b"three"])


@row("write-with-length")
def write_with_length(environ, start_response):
    write = start_response(OK, [TYPE, length(11)])
    write(b"hello ")
    return [b"world"]


def raising(name, exception):
    def app(environ, start_response):
        raise exception

    ROWS["/" + name] = app


raising("system-exit", SystemExit(1))
raising("keyboard-interrupt", KeyboardInterrupt())
raising("generator-exit", GeneratorExit())
raising("base-exception", BaseException("bare"))
raising("memory-error", MemoryError())


@row("recursion-error")
def recursion_error(environ, start_response):
    return recursion_error(environ, start_response)


def file_of(size):
    """A real file of that many bytes, positioned at its start."""
    file = tempfile.TemporaryFile()
    file.write(bytes(i % 251 for i in range(size)))
    file.seek(0)
    return file


def file_row(name, size, headers, offset=0, make=file_of):
    def app(environ, start_response):
        file = make(size)
        file.seek(offset)
        closed.setdefault(name, 0)
        close = file.close

        def count():
            closed[name] += 1
            close()

        # A file object takes no new attribute; what wraps it does.
        start_response(OK, headers)
        return environ["wsgi.file_wrapper"](Counted(file, count), 8192)

    ROWS["/" + name] = app


class Counted:
    """Hands everything to the file but close()."""

    def __init__(self, file, close):
        self.file, self.close = file, close

    def __getattr__(self, name):
        return getattr(self.file, name)


file_row("file", 100000, [TYPE, length(100000)])
file_row("file-without-length", 100000, [TYPE])
file_row("file-shorter-length", 100000, [TYPE, length(10)])
file_row("file-longer-length", 100000, [TYPE, length(200000)])
file_row("file-at-offset", 100000, [TYPE], offset=99990)
file_row("file-empty", 0, [TYPE])
file_row("file-bytesio", 100000, [TYPE], make=lambda size: io.BytesIO(bytes(i % 251 for i in range(size))))


@row("file-iterated")
def file_iterated(environ, start_response):
    """A middleware that iterates the wrapper itself."""
    wrapper = environ["wsgi.file_wrapper"](file_of(20000), 8192)
    start_response(OK, [TYPE])
    return (block for block in wrapper)


@row("close-raises")
def close_raises(environ, start_response):
    class Raising(Blocks):
        def close(self):
            super().close()
            raise ValueError("raised in close")

    start_response(OK, [TYPE, length(2)])
    return Raising("close-raises", [b"ok"])


@row("errors-stream")
def errors_stream(environ, start_response):
    errors = environ["wsgi.errors"]
    errors.write("na\xefve \u20ac one\n")
    errors.writelines(["two\n", "three\n"])
    print("four", file=errors)
    errors.flush()
    start_response(OK, [TYPE, length(2)])
    return [b"ok"]


@row("lying-len")
def lying_len(environ, start_response):
    class Lying(list):
        def __len__(self):
            return 1

    start_response(OK, [TYPE])
    return Lying([b"one", b"two", b"three"])


@row("getitem-only")
def getitem_only(environ, start_response):
    class Old:
        def __getitem__(self, index):
            return [b"one", b"two"][index]

    start_response(OK, [TYPE])
    return Old()


@row("mutated-headers")
def mutated_headers(environ, start_response):
    headers = [TYPE, ("X-A", "1")]
    start_response(OK, headers)
    headers.clear()
    return [b"hello"]


exhausted = iter([])


@row("exhausted-iterator")
def exhausted_iterator(environ, start_response):
    start_response(OK, [TYPE])
    return exhausted


@row("big-block")
def big_block(environ, start_response):
    start_response(OK, [TYPE])
    return [b"x" * 20_000_000]


@row("many-blocks")
def many_blocks(environ, start_response):
    start_response(OK, [TYPE])
    return (b"x" for _ in range(20_000))


@row("early-hints")
def early_hints(environ, start_response):
    framing = [("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("Connection", "close")]
    environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload"), (b"X-Bytes", b"caf\xe9"), *framing])
    start_response(OK, [TYPE, length(2)])
    return [b"ok"]


@row("early-hints-invalid")
def early_hints_invalid(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "a\r\nX-Evil: 1")])
    start_response(OK, [TYPE, length(2)])
    return [b"ok"]


@row("socket")
def client_socket(environ, start_response):
    """gunicorn.socket is a real socket: an app that takes the connection over writes to it itself."""
    environ["gunicorn.socket"].sendall(b"taken over by the app\n")
    raise StopIteration


@row("partial")
def not_a_partial(environ, start_response):
    start_response(OK, [TYPE, length(2)])
    return [b"ok"]


partial = functools.partial(not_a_partial)
