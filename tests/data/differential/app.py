"""The app of the differential test: each path is one thing that servers might do differently.

Whoever loads it says so in the file `loaded` of the folder the server was started in, which is how the test knows that
a worker is there.
"""

import os
import re
import sys


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/").replace("/", "_") or "index"
    return globals().get("do_" + name, not_found)(environ, start_response)


app = application
not_callable = "text"
nothing = None


def factory(*args, **kwargs):
    def made(environ, start_response):
        return text(start_response, f"made with {args} {kwargs}\n")

    return made


def factory_of_nothing():
    return None


def broken_factory():
    raise ValueError("the factory is broken")


def text(start_response, text, status="200 OK", headers=()):
    data = text.encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(data))), *headers])
    return [data]


def not_found(environ, start_response):
    return text(start_response, "not found\n", "404 Not Found")


def do_index(environ, start_response):
    return text(start_response, "hello\n")


def do_environ(environ, start_response):
    """Every key with its value; the names of the servers are equally long this way."""
    lines = []
    for key in sorted(environ):
        value = environ[key]
        if (key.startswith("wsgi.") and not isinstance(value, (bool, str, tuple))) or key == "gunicorn.socket":
            value = "an object"
        if key == "REMOTE_PORT":
            value = "a port"
        lines.append(f"{key} = {without_version(repr(value))}\n")
    return text(start_response, "".join(lines))


def without_version(value):
    return re.sub(r"(gunicorn|monoceros)/[0-9.]+", "NAME/VERSION", value)


def do_body(environ, start_response):
    return text(start_response, repr(environ["wsgi.input"].read()) + "\n")


def do_process(environ, start_response):
    lines = [f"cwd {os.getcwd()}\n", f"path {sys.path[0]}\n"]
    lines += [f"{name} {os.environ.get(name)}\n" for name in ("ONE", "TWO", "PWD")]
    return text(start_response, "".join(lines))


def do_leave(environ, start_response):
    os._exit(5)


def do_software(environ, start_response):
    return text(start_response, without_version(os.environ["SERVER_SOFTWARE"]) + "\n")


def do_crash(environ, start_response):
    import ctypes

    ctypes.string_at(0)


def do_generator(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one\n"
    yield b""
    yield b"two\n"


def do_blocks(environ, start_response):
    start_response("200 OK", [("Content-Length", "8")])
    return [b"one\n", b"", b"two\n"]


def do_write(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "8")])
    write(b"one\n")
    return [b"two\n"]


def do_nocontent(environ, start_response):
    start_response("204 No Content", [("X-Kind", "none")])
    return []


def do_notmodified(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"x"'), ("Content-Length", "5")])
    return []


def do_noreason(environ, start_response):
    return text(start_response, "x\n", "200")


def do_badstatus(environ, start_response):
    return text(start_response, "x\n", "OK 200")


def do_badheader(environ, start_response):
    return text(start_response, "x\n", headers=[("X-Number", 5)])


def do_split(environ, start_response):
    return text(start_response, "x\n", headers=[("X-Split", "a\r\nSet-Cookie: b=c")])


def do_badname(environ, start_response):
    return text(start_response, "x\n", headers=[("X Bad", "a")])


def do_hopbyhop(environ, start_response):
    names = ["Connection", "Keep-Alive", "Proxy-Authenticate", "TE", "Trailers", "Upgrade", "Server", "Date"]
    return text(start_response, "x\n", headers=[(name, "mine") for name in names])


def do_cookies(environ, start_response):
    return text(start_response, "x\n", headers=[("Set-Cookie", "a=b"), ("set-cookie", "c=d "), ("X-Empty", "")])


def do_latin(environ, start_response):
    return text(start_response, "x\n", headers=[("X-Latin", "\xe9")])


def wrapped(environ, file):
    return environ["wsgi.file_wrapper"](file)


def do_file(environ, start_response):
    file = open(__file__, "rb")
    file.seek(3)
    start_response("200 OK", [("Content-Length", "20")])
    return wrapped(environ, file)


def do_filenolength(environ, start_response):
    with open("content", "wb") as file:
        file.write(b"content of a file\n")
    start_response("200 OK", [])
    return wrapped(environ, open("content", "rb"))


def do_filememory(environ, start_response):
    import io

    start_response("200 OK", [("Content-Length", "5")])
    return wrapped(environ, io.BytesIO(b"12345"))


def do_hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    return text(start_response, "x\n")


def do_raise(environ, start_response):
    raise ValueError("a broken view")


def do_oserror(environ, start_response):
    raise ConnectionRefusedError(111, "the database does not listen")


def do_raiselate(environ, start_response):
    start_response("200 OK", [])
    yield b"one\n"
    raise ValueError("a view that breaks late")


def do_excinfo(environ, start_response):
    start_response("200 OK", [])
    try:
        raise ValueError("an error that the app handles")
    except ValueError:
        start_response("500 Oops", [("Content-Length", "2")], sys.exc_info())
    return [b"x\n"]


def do_nostart(environ, start_response):
    return [b"x\n"]


def do_twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b"x\n"]


def do_none(environ, start_response):
    start_response("200 OK", [])


def do_text(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return ["x\n"]


def do_stop(environ, start_response):
    raise StopIteration()


def do_websocket(environ, start_response):
    return text(start_response, "", "101 Switching", headers=[("Upgrade", "websocket"), ("Connection", "Upgrade")])


def do_toolong(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"more than two"]


closed = 0


class Closing:
    def __iter__(self):
        return iter([b"x\n"])

    def close(self):
        global closed
        closed += 1


def do_closing(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return Closing()


def do_closed(environ, start_response):
    return text(start_response, f"closed {closed} times\n")


def do_errors(environ, start_response):
    errors = environ["wsgi.errors"]
    errors.write("one line\n")
    errors.writelines(["two\n", "three\n"])
    errors.flush()
    print("a fourth", file=errors)
    return text(start_response, "x\n")


def do_slow(environ, start_response):
    import time

    # In small steps: a signal ends each of them.
    for _ in range(300):
        time.sleep(0.1)
    return text(start_response, "x\n")


def do_later(environ, start_response):
    """Has the master stopped while it runs."""
    import signal
    import time

    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(0.5)
    return text(start_response, "later\n")


# At the very end: a signal in the midst of an import is something else.
with open(os.path.join(os.path.dirname(os.environ["TMPDIR"]), "loaded"), "a") as loaded:
    loaded.write("loaded\n")
