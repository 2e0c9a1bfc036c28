"""Answers every request with what the server made of it, as JSON.

Text stays latin-1 (one character a byte, as PEP 3333 has it), so the tests see exactly which bytes arrived.
`/noread` leaves the body alone; `/calls` says how often the app has been called (not counting itself).
"""

import json
import os

calls = 0


def application(environ, start_response):
    global calls
    path = environ.get("PATH_INFO", "")
    if path == "/calls":
        return answer(start_response, calls)
    calls += 1
    body = b"" if path == "/noread" else environ["wsgi.input"].read()
    report = {key: value for key, value in environ.items() if isinstance(value, (str, bool))}
    report["wsgi.version"] = list(environ["wsgi.version"])
    report["keys"] = sorted(environ)
    report["types"] = {key: type(value).__name__ for key, value in environ.items()}
    report["exact_dict"] = type(environ) is dict
    report["body"] = body.decode("latin-1")
    report["body_length"] = len(body)
    report["pid"] = os.getpid()
    # What the next request must not find.
    environ["left.behind"] = "by the request before"
    return answer(start_response, report)


def answer(start_response, value):
    data = json.dumps(value).encode("ascii")
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


def factory(greeting, times=1):
    """For `echo:factory("x", times=2)`."""

    def made(environ, start_response):
        return answer(start_response, greeting * times)

    return made


class Callable:
    """An app that is an instance."""

    def __call__(self, environ, start_response):
        return answer(start_response, "instance")


instance = Callable()
bound_method = Callable().__call__


class Iterated:
    """An app that is a class: its instances are the response."""

    def __init__(self, environ, start_response):
        self.start_response = start_response

    def __iter__(self):
        self.start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", "7")])
        yield b'"class"'


nothing = None
number = 42
