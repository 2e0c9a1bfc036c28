"""The applications of the loads: the same for every server, as small as a load allows."""

import time

PLAIN = ("Content-Type", "text/plain")

HELLO = b"Hello, world!"
HELLO_HEADERS = [PLAIN, ("Content-Length", str(len(HELLO)))]

BIG = b"x" * 100_000
BIG_HEADERS = [PLAIN, ("Content-Length", str(len(BIG)))]

BLOCK = b"x" * 1024
BLOCKS = 64


def hello(environ, start_response):
    start_response("200 OK", HELLO_HEADERS)
    return [HELLO]


def echo(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [PLAIN, ("Content-Length", str(len(body)))])
    return [body]


def big(environ, start_response):
    start_response("200 OK", BIG_HEADERS)
    return [BIG]


def stream(environ, start_response):
    """64 blocks of 1 KB from a generator; /trickle shows whether a block is sent before the next one is there."""
    start_response("200 OK", [PLAIN])
    if environ["PATH_INFO"] == "/trickle":
        return trickle()
    return (BLOCK for _ in range(BLOCKS))


def trickle():
    yield BLOCK
    time.sleep(0.2)
    yield BLOCK


def mixed(environ, start_response):
    """Half of the requests wait, as for a database."""
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.020)
    start_response("200 OK", HELLO_HEADERS)
    return [HELLO]


def sleep(environ, start_response):
    # By its module: under gunicorn, and under ours, it is patched when the application is imported.
    time.sleep(0.020)
    start_response("200 OK", HELLO_HEADERS)
    return [HELLO]


def __getattr__(name):
    # Only the loads that use them pay for importing Flask and WhiteNoise.
    if name == "static_app":
        return make_static_app()
    if name != "flask_app":
        raise AttributeError(name)
    from flask import Flask

    app = Flask("bench")

    @app.route("/")
    def hello():
        return HELLO.decode()

    globals()["flask_app"] = app
    return app


def make_static_app():
    """Hello, behind WhiteNoise, which sends the files where the server does not."""
    import servers
    from whitenoise import WhiteNoise

    app = WhiteNoise(hello, root=str(servers.STATIC), prefix="static/")
    globals()["static_app"] = app
    return app
