"""Apps inside wsgiref's validator: whatever the server does against PEP 3333 becomes a 500."""

from tempfile import TemporaryFile
from wsgiref.validate import validator

TYPE = ("Content-Type", "text/plain")


def plain(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or -1)
    body = environ["wsgi.input"].read(length)
    answer = environ["REQUEST_METHOD"].encode() + b":" + body
    start_response("200 OK", [TYPE, ("Content-Length", str(len(answer)))])
    return [answer]


def lines(environ, start_response):
    """Every way to read but read(): readline, readlines, iteration."""
    stream = environ["wsgi.input"]
    first = stream.readline()
    rest = b"".join(stream)
    environ["wsgi.errors"].write("")
    environ["wsgi.errors"].flush()
    start_response("200 OK", [TYPE])
    return [first + b"|", rest + b"".join(stream.readlines())]


def generated(environ, start_response):
    start_response("200 OK", [TYPE])
    return (b"block %d\n" % number for number in range(3))


def written(environ, start_response):
    write = start_response("200 OK", [TYPE])
    write(b"first ")
    write(b"second ")
    return [b"third"]


def wrapped_file(environ, start_response):
    file = TemporaryFile()
    file.write(b"0123456789" * 1000)
    file.seek(0)
    start_response("200 OK", [TYPE, ("Content-Length", "10000")])
    return environ["wsgi.file_wrapper"](file, 4096)


def empty(environ, start_response):
    start_response("204 No Content", [])
    return []


ROUTES = {
    "/plain": plain,
    "/lines": lines,
    "/generated": generated,
    "/written": written,
    "/file": wrapped_file,
    "/empty": empty,
}


@validator
def application(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)
