"""The app of the differential test: each path is one thing that servers might do differently.

Whoever loads it says so in the file `loaded` of the folder the server was started in, which is how the test knows that a worker is there.
"""

import os
import sys

with open(os.path.join(os.path.dirname(os.environ["TMPDIR"]), "loaded"), "a") as loaded:
    loaded.write("loaded\n")


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
        if key.startswith("wsgi.") and not isinstance(value, (bool, str, tuple)) or key == "gunicorn.socket":
            value = "an object"
        value = repr(value).replace("gunicorn/27.0.1", "NAME/VERSION").replace("monoceros/0.1.0", "NAME/VERSION")
        lines.append(f"{key} = {value}\n")
    return text(start_response, "".join(lines))


def do_body(environ, start_response):
    return text(start_response, repr(environ["wsgi.input"].read()) + "\n")


def do_process(environ, start_response):
    lines = [f"cwd {os.getcwd()}\n", f"path {sys.path[0]}\n"]
    lines += [f"{name} {os.environ.get(name)}\n" for name in ("ONE", "TWO", "PWD")]
    return text(start_response, "".join(lines))
