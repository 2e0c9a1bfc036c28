"""Runs the calls named in the query string on wsgi.input and answers with what each gave back.

`?readline(3)&read()` gives `["lin", "e1\\n..."]`. A list stays a list; `iter` stands for `list(wsgi.input)`;
what raises answers with `"!ValueError"`. Only the tests speak to this app: it evaluates what it is told.
"""

import json
from urllib.parse import unquote


def application(environ, start_response):
    stream = environ["wsgi.input"]
    results = [call(stream, unquote(step)) for step in environ["QUERY_STRING"].split("&") if step]
    data = json.dumps(results).encode("ascii")
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


def call(stream, step):
    try:
        value = list(stream) if step == "iter" else eval("stream." + step, {"stream": stream})
    except Exception as error:
        return "!" + type(error).__name__
    return text(value)


def text(value):
    if isinstance(value, list):
        return [text(one) for one in value]
    if type(value) is not bytes:
        return "!" + type(value).__name__
    return value.decode("latin-1")
