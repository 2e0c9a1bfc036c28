"""Answers of every kind, for clients that speak uwsgi."""


def application(environ, start_response):
    return PATHS[environ["PATH_INFO"]](environ, start_response)


def text(start_response, value):
    data = str(value).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return [data]


def length(environ, start_response):
    """How long the body is, and how many of its bytes are an x."""
    body = environ["wsgi.input"].read()
    return text(start_response, f"{len(body)} {body.count(b'x')}")


def unread(environ, start_response):
    return text(start_response, "unread")


def stream(environ, start_response):
    """Blocks without a length."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (b"block %d\n" % number for number in range(1000))


def write(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])(b"written ")
    return [b"and returned"]


def hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    return text(start_response, "after the hints")


def empty(environ, start_response):
    start_response("204 No Content", [])
    return []


def unchanged(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"a"')])
    return []


def cookies(environ, start_response):
    start_response("200 OK", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Content-Length", "0")])
    return []


def raises(environ, start_response):
    raise ValueError("the app is broken")


PATHS = {
    "/length": length,
    "/unread": unread,
    "/stream": stream,
    "/write": write,
    "/hints": hints,
    "/empty": empty,
    "/unchanged": unchanged,
    "/cookies": cookies,
    "/raises": raises,
}
